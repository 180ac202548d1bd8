"""The project's own table of the Proxmox VE API, and a validator over it. Pure: never touches disk or network.

``check`` says what Proxmox would say against a request; ``find`` names the operation behind a path; ``table`` is
everything; ``privileges`` holds what each call needs.
"""

from __future__ import annotations

from funoffshore.pveapi import privileges
from funoffshore.pveapi.check import UnknownOperationError, check, check_parameters, find, parse, parts_of
from funoffshore.pveapi.formats import FormatError, split_list
from funoffshore.pveapi.operations import table
from funoffshore.pveapi.schema import RELEASES, Operation, Parameter, Tree

__all__ = [
    "RELEASES",
    "FormatError",
    "Operation",
    "Parameter",
    "Tree",
    "UnknownOperationError",
    "check",
    "check_parameters",
    "find",
    "parse",
    "parts_of",
    "privileges",
    "split_list",
    "table",
]
