"""The project's own table of the Proxmox VE API, and a validator over it. Pure: never touches disk or network.

``check`` says what Proxmox would say against a request; ``find`` names the operation behind a path; ``table`` is
everything; ``privileges`` holds what each call needs.
"""

from __future__ import annotations

from funoffshore.pveapi import calendar, privileges
from funoffshore.pveapi.check import UnknownOperationError, below, check, check_parameters, find, parse, parts_of
from funoffshore.pveapi.formats import CPU_MODELS, FormatError, split_list
from funoffshore.pveapi.operations import table
from funoffshore.pveapi.schema import RELEASES, Operation, Parameter, Tree

__all__ = [
    "CPU_MODELS",
    "RELEASES",
    "FormatError",
    "Operation",
    "Parameter",
    "Tree",
    "UnknownOperationError",
    "below",
    "calendar",
    "check",
    "check_parameters",
    "find",
    "parse",
    "parts_of",
    "privileges",
    "split_list",
    "table",
]
