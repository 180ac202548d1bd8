"""The cluster as a picture: hypervisors with their machines, the address above the controllers, Git and Flux beside."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from funoffshore.config import ClusterConfig, Node, Role
from funoffshore.show.report.markup import Markup, fit, join, plural, tag
from funoffshore.timeline import Span

MAIN, SIDE, WIDTH = 836.0, 240.0, 1100.0
"""Pixels: hypervisors, what stands beside them, and all of it."""
CARD, CARD_HEIGHT, GAP, INSET, FOOT = 116.0, 54.0, 8.0, 12.0, 26.0
"""Pixels: a machine's least width, its height, between machines, inside a hypervisor, a hypervisor's own line."""
TOP, BOXES = 8.0, 108.0
"""Pixels: where VIP and Flux begin, and where the hypervisors do."""
COLUMNS = 5


@dataclass(frozen=True, slots=True)
class Box:
    """A hypervisor in the picture, or all those on which fo places machines as it sees fit."""

    name: str
    """Empty: the machines in it are pinned to no hypervisor."""
    nodes: tuple[Node, ...]
    x: float
    y: float
    width: float
    height: float

    @property
    def across(self) -> int:
        """Machines beside each other."""
        return max(1, int((self.width - 2 * INSET + GAP) / (CARD + GAP)))

    def place(self, number: int) -> tuple[float, float, float]:
        """x, y and width of a machine."""
        width = (self.width - 2 * INSET + GAP) / self.across - GAP
        x = self.x + INSET + number % self.across * (width + GAP)
        return x, self.y + INSET + number // self.across * (CARD_HEIGHT + GAP), width


def picture(config: ClusterConfig, spans: Sequence[Span]) -> Markup:
    """The topology as the config wants it; machines on which an action failed are marked."""
    placed = boxes(config)
    failed = frozenset(s.on for s in spans if s.on and s.outcome == "failed")
    bottom = max([b.y + b.height for b in placed] + [BOXES + 118]) + 8
    described = (
        f"{plural(len(config.controllers), 'controller')} and {plural(len(config.workers), 'worker')} on "
        f"{plural(len(config.proxmox.nodes), 'Proxmox node')}; the Kubernetes API at {config.network.vip}; "
        f"Flux {config.flux.version} follows {git_url(config)}."
    )
    inside = [tag("title", "Topology of the cluster"), tag("desc", described), *map(_hypervisor, placed)]
    inside += [_wires(placed), _vip(config), _beside(config)]
    inside += [
        _machine(node, box.place(i), wrong=node.name in failed) for box in placed for i, node in enumerate(box.nodes)
    ]
    view = f"0 0 {WIDTH:.0f} {bottom:.0f}"
    names = [tag("li", _swatch(role), f"{role.value}s") for role in Role]
    names += [tag("li", tag("b", "✘ ", class_="bad"), "an action on it failed")] if failed else []
    legend = tag("ul", *names, class_="legend")
    return join(
        legend, tag("div", tag("svg", *inside, role="img", viewBox=view, class_="picture"), class_="wide frame")
    )


def boxes(config: ClusterConfig) -> list[Box]:
    """Hypervisors in the config's order, those with controllers first, in as many columns as are legible.

    Machines that are pinned nowhere have a box of their own, unless there is one hypervisor only. Beside it the
    hypervisors without pinned machines are left out: whether they are empty cannot be told from the config.
    """
    only = config.proxmox.nodes[0] if len(config.proxmox.nodes) == 1 else ""
    home = {node.name: node.hypervisor or only for node in config.nodes}
    names = dict.fromkeys((*config.proxmox.nodes, *home.values()))
    held = {name: tuple(n for n in config.nodes if home[n.name] == name) for name in names}
    if "" in held:
        names = {name: None for name in names if held[name]}
    order = sorted(names, key=lambda name: not any(n.role is Role.CONTROLLER for n in held[name]))
    columns = min(COLUMNS, max(1, len(order)))
    width = (MAIN + 2 * GAP) / columns - 2 * GAP
    found: list[Box] = []
    y = BOXES
    for first in range(0, len(order), columns):
        row = [
            Box(name, held[name], i * (width + 2 * GAP), y, width, 0)
            for i, name in enumerate(order[first : first + columns])
        ]
        lines = max(-(-max(1, len(box.nodes)) // box.across) for box in row)
        height = 2 * INSET - GAP + lines * (CARD_HEIGHT + GAP) + FOOT
        found += [Box(b.name, b.nodes, b.x, b.y, b.width, height) for b in row]
        y += height + 2 * GAP
    return found


def git_url(config: ClusterConfig) -> str:
    """Without a scheme, and without whoever is named before the host."""
    return re.sub(r"^[a-z+]+://([^/]*@)?", "", config.git.url)


def _swatch(role: Role) -> Markup:
    box = tag("rect", x=0, y=0, width=4, height=12, rx=2, class_=f"role {role.value}")
    return tag("svg", box, viewBox="0 0 4 12", width=4, height=12, aria_hidden="true")


def _hypervisor(box: Box) -> Markup:
    cores = sum(n.cores for n in box.nodes)
    memory = sum(n.memory_mib for n in box.nodes)
    sums = f"{plural(len(box.nodes), 'machine')}, {cores} cores, {_memory(memory)}" if box.nodes else "no machine"
    y = box.y + box.height - 11
    name = fit(box.name or "placed by fo", box.width / 2 - INSET, 7.5)
    room = box.width - 2 * INSET - len(name) * 7.5 - 10
    return tag(
        "g",
        tag("title", f"Proxmox node {box.name}: {sums}" if box.name else f"Placed by fo where there is room: {sums}"),
        tag("rect", x=box.x + 1, y=box.y, width=box.width - 2, height=box.height, rx=8, class_="hypervisor"),
        tag("text", name, x=box.x + INSET, y=y, class_="strong"),
        tag("text", fit(sums, room, 5.9), x=box.x + box.width - INSET, y=y, class_="small right"),
    )


def _machine(node: Node, place: tuple[float, float, float], *, wrong: bool) -> Markup:
    x, y, width = place
    size = f"{node.cores} cores, {_memory(node.memory_mib)}"
    said = f"{node.name}, {node.role.value}, VMID {node.vmid}, {node.address}, {size}, {node.disk_gib} GiB disk"
    kind = "card" + (" wrong" if wrong else "")
    name = fit(node.name, width - (34 if wrong else 20), 7)
    cross = tag("text", "✘", x=x + width - 8, y=y + 17, class_="cross right") if wrong else ""
    return tag(
        "g",
        tag("title", said + (": an action on it failed" if wrong else "")),
        tag("rect", x=x, y=y, width=width, height=CARD_HEIGHT, rx=5, class_=kind),
        tag("rect", x=x, y=y + 5, width=4, height=CARD_HEIGHT - 10, rx=2, class_=f"role {node.role.value}"),
        tag("text", name, x=x + 12, y=y + 17, class_="strong"),
        cross,
        tag("text", str(node.address), x=x + 12, y=y + 31, class_="code"),
        tag("text", fit(size, width - 16, 5.6), x=x + 12, y=y + 45, class_="small"),
    )


def _vip(config: ClusterConfig) -> Markup:
    x = MAIN / 2 - 120
    return tag(
        "g",
        tag("title", f"Virtual address of the controllers, {config.network.vip}"),
        tag("rect", x=x, y=TOP, width=240, height=52, rx=26, class_="vip"),
        tag("text", "Kubernetes API (VIP)", x=MAIN / 2, y=TOP + 21, class_="small middle"),
        tag("text", f"{config.network.vip}:6443", x=MAIN / 2, y=TOP + 39, class_="strong middle"),
    )


def _wires(placed: Sequence[Box]) -> Markup:
    """From the address to every controller in the upper row of hypervisors, around the machines in between."""
    bus = BOXES - 22
    ends = []
    for box in placed:
        for i, node in enumerate(box.nodes):
            if node.role is Role.CONTROLLER and box.y == BOXES:
                x, y, width = box.place(i)
                if i < box.across:
                    ends.append((x + width / 2, f"V{y:.1f}"))
                else:
                    ends.append((x - GAP / 2, f"V{y + CARD_HEIGHT / 2:.1f}H{x:.1f}"))
    if not ends:
        return Markup("")
    reach = [x for x, _ in ends] + [MAIN / 2]
    line = f"M{MAIN / 2:.1f} {TOP + 52:.1f}V{bus:.1f}M{min(reach):.1f} {bus:.1f}H{max(reach):.1f}"
    return tag("path", d=line + "".join(f"M{x:.1f} {bus:.1f}{way}" for x, way in ends), class_="wire")


def _beside(config: ClusterConfig) -> Markup:
    x, room = WIDTH - SIDE, SIDE - 24
    flux, git = TOP, BOXES + 14
    middle = x + SIDE / 2
    shown = [(f"branch {config.git.branch}", "small"), (config.git.path, "code")]
    lines = [
        tag("text", fit(text, room, 6.3), x=x + 12, y=git + 58 + i * 16, class_=kind)
        for i, (text, kind) in enumerate(shown)
    ]
    return join(
        _arrow(f"M{x:.1f} {flux + 26:.1f}H{MAIN / 2 + 127:.1f}", (MAIN / 2 + 121, flux + 26), (1, 0)),
        tag("text", "applies", x=(x + MAIN / 2 + 120) / 2, y=flux + 19, class_="small middle"),
        tag("rect", x=x, y=flux, width=SIDE - 1, height=52, rx=8, class_="flux"),
        tag("text", "Flux", x=x + 12, y=flux + 21, class_="strong"),
        tag("text", fit(config.flux.version, room, 6.3), x=x + 12, y=flux + 38, class_="code"),
        _arrow(f"M{middle:.1f} {flux + 59:.1f}V{git:.1f}", (middle, flux + 53), (0, 1)),
        tag("text", "follows", x=middle + 10, y=(flux + 52 + git) / 2 + 4, class_="small"),
        tag("rect", x=x, y=git, width=SIDE - 1, height=88, rx=8, class_="git"),
        tag("text", "Git", x=x + 12, y=git + 21, class_="strong"),
        tag(
            "g",
            tag("title", git_url(config)),
            tag("text", fit(git_url(config), room, 6.6), x=x + 12, y=git + 40, class_="code"),
        ),
        *lines,
    )


def _arrow(line: str, tip: tuple[float, float], back: tuple[int, int]) -> Markup:
    """``line``, with a head at ``tip``; ``back`` points from the tip to where the line comes from."""
    (x, y), (dx, dy) = tip, back
    head = f"M{x} {y}L{x + 8 * dx + 4 * dy} {y + 8 * dy + 4 * dx}L{x + 8 * dx - 4 * dy} {y + 8 * dy - 4 * dx}Z"
    return join(tag("path", d=line, class_="wire flow"), tag("path", d=head, class_="head"))


def _memory(mib: int) -> str:
    return f"{mib / 1024:.1f}".removesuffix(".0") + " GiB"
