"""One exit code per class, and the tree drawn in the docstring is the tree there is."""

from __future__ import annotations

import re

from funoffshore import errors


def classes() -> list[type[errors.FoError]]:
    return [errors.FoError, *errors.FoError.__subclasses__()]


def test_every_class_has_its_own_exit_code() -> None:
    codes = [c.exit_code for c in classes()]
    assert len(codes) == len(set(codes))


def test_the_drawn_tree_is_the_tree() -> None:
    drawn = dict(re.findall(r"(\w+Error) +(\d+)", errors.__doc__ or ""))
    assert drawn == {c.__name__: str(c.exit_code) for c in classes()}
