"""What is not as desired and is not done unasked: restarts, rebuilds, removals. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from funoffshore.config import ClusterConfig
from funoffshore.plan import Held, Permits
from funoffshore.reading import Present
from funoffshore.stages.machines import drift
from funoffshore.stages.machines.facts import MachineFacts


def held(config: ClusterConfig, facts: MachineFacts, permits: Permits) -> list[Held]:
    """Everything that ``plan`` leaves out for want of a permit."""
    return [*_changes(config, facts, permits), *_removals(facts, permits)]


def _changes(config: ClusterConfig, facts: MachineFacts, permits: Permits) -> Iterator[Held]:
    for node in config.nodes:
        reading = facts.machine(node.name)
        if not isinstance(reading, Present) or node.name in permits.replace:
            continue
        found = drift.differences(config, node, reading.value, release(facts), reading.value.pending)
        for how, key, permit in (
            (drift.How.RESTART, "restart", "" if permits.reboots else "--allow-reboots"),
            (drift.How.REBUILD, "machine", f"--replace {node.name}"),
        ):
            wrong = [difference.sentence for difference in found if difference.how is how]
            if wrong and permit:
                yield Held(f"{key}/{node.name}", ", ".join(wrong), permit)
        wrong = [difference.sentence for difference in found if difference.how is drift.How.HELD]
        if wrong:
            yield Held(f"machine/{node.name}", ", ".join(wrong), "")


def _removals(facts: MachineFacts, permits: Permits) -> Iterator[Held]:
    for name, machine in sorted(facts.former.items()):
        if name not in permits.remove:
            reason = f"VM {machine.vmid} on {machine.hypervisor} is ours, and the env file names it no more"
            yield Held(f"machine/{name}", reason, f"--remove {name}")


def release(facts: MachineFacts) -> tuple[int, int]:
    """The release that was seen; an old one while none was, as those take the fewest options."""
    return facts.release.value if isinstance(facts.release, Present) else (8, 4)
