"""One node that offloads experts: GPU, host and flash, and a GPU process that walks through the visits.

The semantics are DESIGN section 5. A visit computes attention and router, labels its lookups against what is on the
GPU at that moment, sends for what is missing (demands first, then what the prefetch policy proposes), computes shared
experts, then those that are there, then the others as they arrive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import simpy

from moesim.costs.node_times import Times
from moesim.engine.clock import ASK, Pause
from moesim.engine.gpu_memory import GpuMemory
from moesim.engine.host_memory import HostMemory
from moesim.engine.links import Admission, Link
from moesim.engine.misses import Misses
from moesim.engine.outcome import HIT, LATE, MISS, ComputeSpan, Outcome, Wait
from moesim.engine.proposals import Proposals
from moesim.engine.transfers import Transfer
from moesim.policies.api import (
    ABSENT,
    COMING,
    CPU,
    FETCH,
    HERE,
    LOW,
    LOW_COMING,
    LOW_HERE,
    SKIP,
    STREAM,
    SUBSTITUTE,
)
from moesim.replay.figures import Cause
from moesim.setup import FULL, STREAMED, Form, Pieces, Setup
from moesim.setup import LOW as LOW_FORM

#: In which form an expert comes for each action.
FORMS = {FETCH: FULL, CPU: FULL, STREAM: STREAMED, LOW: LOW_FORM}
#: What the timeline calls an expert's computation.
WHAT = {LOW: "expert in low precision", SUBSTITUTE: "substitute of expert"}


def simulate(setup: Setup, max_steps: int | None = None) -> Outcome:
    """Run a setup through SimPy until its last step has ended, or the last of the first ``max_steps``."""
    node = OffloadNode(setup)
    node.env.run(until=node.env.process(node.run(max_steps)))
    return node.outcome()


class OffloadNode:
    """The state of one run."""

    def __init__(self, setup: Setup):
        self.env = env = simpy.Environment()
        self._setup = setup
        self._gpu = GpuMemory(env, setup, self._give_way)
        self._host: HostMemory | None = None
        if setup.host is not None:
            sizes = setup.sizes if setup.low is None else np.concatenate([setup.sizes, setup.low.sizes])
            experts, keys = setup.visits.num_experts, len(setup.sizes)
            self._host = HostMemory(env, setup.host, sizes, experts, keys, self._give_way_in_host)
        self._transfers: dict[int, Transfer] = {}
        self._arrivals: deque[Transfer] = deque()
        self._wake: simpy.Event | None = None
        self._asked_visit = -1
        self._connect()
        self._read_times()
        visits, steps = setup.visits.num_visits, setup.visits.steps.num_steps
        self._step_start, self._step_end = [0.0] * steps, [0.0] * steps
        self._visit_start, self._visit_end = [0.0] * visits, [0.0] * visits
        self._waits: list[Wait] = []
        self._label = [HIT] * len(self._lookup_key)
        self._action = [FETCH] * len(self._lookup_key)
        self._used = list(self._lookup_key)  # the object that each lookup is computed with
        self._misses = Misses(setup, self._host, lambda key: self._where(key) == HERE)
        self._resident_bytes = [0] * visits
        self._compute_spans: list[ComputeSpan] = []

    def _connect(self) -> None:
        """Links and the CPU, and where a transfer goes from each."""
        setup, cpu_s = self._setup, self._setup.times.cpu_s.tolist()
        self._pieces = {form: cut.count.tolist() for form, cut in setup.pieces.items()}
        copies, reads = durations(setup)
        top = self._admit_to_gpu, self._reached_gpu
        flash_admit, flash_arrive = top if setup.unified or self._host is None else (self._host.admit, self._read)
        self._pcie = Link(
            self.env,
            "pcie",
            setup.link,
            duration_s=lambda transfer: copies[transfer.pieces > 1][transfer.form][transfer.key],
            admit=top[0],
            arrive=top[1],
            causes=(Cause.PCIE_QUEUE, Cause.PCIE),
            pieces=self._cut,
            goes_on=self._goes_on,
        )
        self._flash = Link(
            self.env,
            "flash",
            setup.link,
            duration_s=lambda transfer: reads[transfer.pieces > 1][transfer.form][transfer.key],
            admit=flash_admit,
            arrive=flash_arrive,
            causes=(Cause.FLASH_QUEUE, Cause.FLASH),
            pieces=self._cut,
            goes_on=self._goes_on,
        )
        self._cpu = Link(
            self.env,
            "cpu",
            "fifo",
            duration_s=lambda transfer: cpu_s[transfer.lookup],
            admit=_always,
            arrive=self._done,
            causes=(Cause.CPU_QUEUE, Cause.CPU),
        )

    def _read_times(self) -> None:
        """Arrays as lists, which Python indexes faster."""
        visits, times = self._setup.visits, self._setup.times
        self._before_s, self._shared_s = times.before.total_s.tolist(), times.shared.total_s.tolist()
        self._expert_s, self._after_s = times.expert.total_s.tolist(), times.after.total_s.tolist()
        low = self._setup.low
        self._low_expert_s = [] if low is None else low.expert.total_s.tolist()
        self._lookup_start: list[int] = visits.lookup_start.tolist()
        self._lookup_key: list[int] = visits.lookup_key.tolist()
        self._proposals = Proposals(self._setup, self._sent_for)

    # ---- The GPU ---------------------------------------------------------------------------------------------------

    def run(self, max_steps: int | None = None) -> Generator[simpy.Event, Any, None]:
        """The GPU's compute stream: every visit of every step, in order."""
        layers, env = self._setup.visits.num_layers, self.env
        for step, after_s in enumerate(self._after_s[:max_steps]):
            self._step_start[step] = env.now
            for layer in range(layers):
                visit = step * layers + layer
                self._visit_start[visit] = env.now
                self._gpu.visit = visit
                yield self._compute(visit, "attention + router", -1, self._before_s[visit])
                ready, missing = self._ask(visit, layer)
                if self._shared_s[visit]:
                    yield self._compute(visit, "shared experts", -1, self._shared_s[visit])
                for lookup in ready:
                    yield self._compute_expert(visit, lookup)
                    self._gpu.computed(self._used[lookup])
                for _ in range(missing):
                    if not self._arrivals:
                        yield from self._wait(visit)
                    transfer = self._arrivals.popleft()
                    if not transfer.on_cpu:
                        yield self._compute_expert(visit, transfer.lookup)
                        self._gpu.computed(self._used[transfer.lookup])
                self._gpu.end_visit(layer)
                self._resident_bytes[visit] = sum(self._gpu.used_bytes.values())
                self._visit_end[visit] = env.now
            yield self._compute(step * layers + layers - 1, "output head", -1, after_s)
            self._step_end[step] = env.now

    def _compute(self, visit: int, what: str, key: int, seconds: float) -> Pause:
        now = self.env.now
        self._compute_spans.append(ComputeSpan(visit, what, key, now, now + seconds))
        return Pause(self.env, seconds, ASK)

    def _compute_expert(self, visit: int, lookup: int) -> Pause:
        action = self._action[lookup]
        seconds = self._low_expert_s[lookup] if action == LOW else self._expert_s[lookup]
        return self._compute(visit, WHAT.get(action, "expert"), self._lookup_key[lookup], seconds)

    def _wait(self, visit: int) -> Iterator[simpy.Event]:
        """Wait for the next arrival, and charge the wait to what that expert was waiting for."""
        start = self.env.now
        self._wake = self.env.event()
        yield self._wake
        awaited = self._arrivals[0]
        for cause, start_s, end_s in awaited.split(start, self.env.now):
            self._waits.append(Wait(visit, awaited.key, cause, start_s, end_s))

    # ---- Asking ----------------------------------------------------------------------------------------------------

    def _ask(self, visit: int, layer: int) -> tuple[list[int], int]:
        """Label the visit's lookups, send for what is missing and for what is proposed.

        Returns:
            The lookups that are ready, in order, and how many others will arrive.
        """
        start, stop = self._lookup_start[visit], self._lookup_start[visit + 1]
        members = self._lookup_key[start:stop]
        there = [self._where(key) for key in members]
        self._asked_visit = visit
        self._gpu.unprotect()
        actions, order, instead = self._misses.choose(start, members, there)
        self._action[start:stop] = actions
        ready, demands, awaited = [], [], 0
        used: dict[int, list[int]] = {}
        for place, (key, where, action) in enumerate(zip(members, there, actions, strict=True)):
            lookup = start + place
            self._label[lookup] = _label(where, action)
            if action == SKIP:
                continue
            thing = self._gpu.number(instead[place] if action == SUBSTITUTE else key, self._form(key, action))
            self._used[lookup] = thing
            if action != CPU:
                used.setdefault(thing // self._setup.visits.num_keys, []).append(thing)
            if action == SUBSTITUTE:
                ready.append(lookup)
            elif self._label[lookup] == MISS:
                demands.append((order[place], lookup))
            else:
                awaited += self._already_there(lookup, thing, ready)
        skipped = frozenset(key for key, action in zip(members, actions, strict=True) if action == SKIP)
        self._gpu.begin_visit(layer, used, skipped)
        for _, lookup in sorted(demands):
            self._demand(visit, lookup)
        self._withdraw_stale()
        self._prefetch(visit)
        return ready, awaited + len(demands)

    def _where(self, key: int) -> int:
        """ABSENT, HERE, COMING, LOW_HERE or LOW_COMING."""
        for form, here, coming in ((FULL, HERE, COMING), (LOW_FORM, LOW_HERE, LOW_COMING)):
            thing = self._gpu.number(key, form)
            if self._gpu.holds(thing):
                return coming if thing in self._transfers else here
        return ABSENT

    def _sent_for(self, key: int) -> int:
        """As :meth:`_where`, of the expert in full; COMING also where it waits to be brought."""
        return COMING if key in self._transfers else HERE if self._gpu.holds(key) else ABSENT

    def _form(self, key: int, action: int) -> int:
        """In which form the expert is used; where a prefetch of the whole waits, nothing is streamed beside it."""
        form = FORMS.get(action, FULL)
        return FULL if form == STREAMED and key in self._transfers else form

    def _already_there(self, lookup: int, thing: int, ready: list[int]) -> bool:
        """Use what holds space; whether it is still on its way."""
        transfer = self._transfers.get(thing)
        self._gpu.asked(thing, on_the_way=transfer is not None)
        if transfer is None:
            ready.append(lookup)
            return False
        transfer.lookup = lookup
        if transfer.queued_on is not None:  # between two pieces
            transfer.queued_on.promote(transfer)
        return True

    def _demand(self, visit: int, lookup: int) -> None:
        """Send for a missing expert; a prefetch of it that has not reached the link to the GPU becomes the demand."""
        key, thing, on_cpu = self._lookup_key[lookup], self._used[lookup], self._action[lookup] == CPU
        waiting = self._transfers.get(thing)
        if waiting is not None:
            self._gpu.counts.withdrawn += 1
            if not (on_cpu and waiting.queued_on is self._pcie):
                waiting.is_demand, waiting.visit, waiting.lookup, waiting.on_cpu = True, visit, lookup, on_cpu
                if waiting.queued_on is not None:
                    waiting.queued_on.promote(waiting)
                return
            self._withdraw(waiting)
        self._send(Transfer(key, visit, lookup, on_cpu, thing // self._setup.visits.num_keys))

    def _prefetch(self, visit: int) -> None:
        """Send for what the policy proposes at this visit."""
        counts = self._gpu.counts
        protects = self._setup.prefetch is not None and self._setup.prefetch.protects
        for key, target, form in self._proposals.at(visit):
            counts.proposed += 1
            waiting = self._transfers.get(self._gpu.number(key, form))
            if waiting is not None:
                waiting.visit = max(waiting.visit, target)
            if waiting is not None or self._on_its_way(key, form):
                counts.redundant += 1
                if protects:
                    self._protect(key)
            else:
                self._send(Transfer(key, target, lookup=-1, form=form))

    def _protect(self, key: int) -> None:
        """An expert that is there, in full or else in low precision, is not to leave before its visit."""
        here = {HERE: FULL, LOW_HERE: LOW_FORM}.get(self._where(key))
        if here is not None:
            self._gpu.protect(self._gpu.number(key, here))

    def _on_its_way(self, key: int, form: int) -> bool:
        """Whether the expert is there or comes already, in this form or a better one."""
        streamed, whole = self._gpu.number(key, STREAMED), self._gpu.number(key, FULL)
        held = self._gpu.holds(self._gpu.number(key, form)) or self._gpu.holds(whole)
        return held or streamed in self._transfers or whole in self._transfers

    def _withdraw_stale(self) -> None:
        """Prefetches for the running visit that still wait, and that its router did not choose, are off.

        One that is being read from flash is dropped when it has reached host memory.
        """
        waiting = [transfer for transfer in self._transfers.values() if transfer.arrives_s is None]
        for transfer in waiting:
            if self._is_wanted(transfer):
                continue
            if transfer.reaching_gpu:
                self._stop(transfer)
            elif not transfer.pieces:
                self._gpu.counts.withdrawn += 1
                self._withdraw(transfer)

    def _is_wanted(self, transfer: Transfer) -> bool:
        """Whether it is waited for, or its visit is still to come (or it is no longer stopped for that)."""
        return transfer.lookup >= 0 or transfer.visit > self._asked_visit or not self._setup.withdraw

    def _withdraw(self, transfer: Transfer) -> None:
        transfer.cancelled = True
        del self._transfers[self._gpu.number(transfer.key, transfer.form)]
        if transfer.queued_on is self._pcie and self._host is not None:
            self._host.release(transfer)

    # ---- The way up ------------------------------------------------------------------------------------------------

    def _send(self, transfer: Transfer) -> None:
        """Start an expert on its way from where it is."""
        self._transfers[self._gpu.number(transfer.key, transfer.form)] = transfer
        if self._setup.unified:
            self._flash.put(transfer)
        elif self._host is None:
            self._up(transfer)
        elif self._host.holds(transfer.key, transfer.form):
            self._host.use(transfer)
            self._up(transfer)
        else:
            self._flash.put(transfer)

    def _up(self, transfer: Transfer) -> None:
        (self._cpu if transfer.on_cpu else self._pcie).put(transfer)

    def _admit_to_gpu(self, transfer: Transfer) -> Admission:
        admitted = yield from self._gpu.admit(transfer)
        if not admitted:
            self._end(transfer)
        return admitted

    def _read(self, transfer: Transfer) -> None:
        """An expert has come from flash to host memory; a prefetch that is no longer wanted ends here."""
        if self._is_wanted(transfer):
            self._up(transfer)
        else:
            self._gpu.counts.withdrawn += 1
            self._end(transfer)

    def _cut(self, transfer: Transfer) -> int:
        """In how many pieces a transfer that begins on a link goes: demands in one."""
        return self._pieces[transfer.form][transfer.key] if transfer.lookup < 0 and self._pieces else 1

    def _goes_on(self, transfer: Transfer) -> bool:
        """Whether the rest of a prefetch is brought. What is on its way to host memory arrives there in any case."""
        goes_on = not transfer.reaching_gpu or self._is_wanted(transfer)
        if not goes_on:
            self._stop(transfer)
        return goes_on

    def _stop(self, transfer: Transfer) -> None:
        """A prefetch that has begun to reach the GPU is given up, with what came of it."""
        transfer.cancelled = True
        self._gpu.stopped(transfer)
        self._end(transfer)

    def _give_way(self) -> None:
        """A demand finds no room, since a prefetch that stands between two pieces holds the last: it is given up."""
        for transfer in list(self._transfers.values()):
            if transfer.reaching_gpu and transfer.lookup < 0 and transfer.arrives_s is None:
                self._stop(transfer)
                return
        raise AssertionError("nobody can leave, and nothing is under way")

    def _give_way_in_host(self, demand: Transfer) -> bool:
        """As :meth:`_give_way`, where a prefetch that is read holds host memory's last room; whether there is one."""
        for transfer in list(self._transfers.values()):
            if demand.is_demand and transfer.pieces and transfer.lookup < 0 and transfer.queued_on is self._flash:
                transfer.cancelled = True
                self._gpu.counts.withdrawn += 1
                assert self._host is not None
                self._host.stopped(transfer)
                del self._transfers[self._gpu.number(transfer.key, transfer.form)]
                return True
        return False

    def _reached_gpu(self, transfer: Transfer) -> None:
        self._gpu.arrived(transfer)
        self._done(transfer)

    def _done(self, transfer: Transfer) -> None:
        """A transfer is through; whoever waits for it goes on."""
        self._end(transfer)
        if transfer.lookup >= 0:
            self._arrivals.append(transfer)
            if self._wake is not None:
                wake, self._wake = self._wake, None
                wake.succeed()

    def _end(self, transfer: Transfer) -> None:
        """A transfer is over, and host memory need not hold its expert any longer."""
        del self._transfers[self._gpu.number(transfer.key, transfer.form)]
        if self._host is not None:
            self._host.release(transfer)

    def outcome(self) -> Outcome:
        """The record of the run."""
        resident_share = self._gpu.close(self._setup.visits.num_visits)
        self._gpu.counts.withdrawn += sum(not t.is_demand and not t.reaching_gpu for t in self._transfers.values())
        return Outcome(
            step_start_s=np.array(self._step_start),
            step_end_s=np.array(self._step_end),
            visit_start_s=np.array(self._visit_start),
            visit_end_s=np.array(self._visit_end),
            label=np.array(self._label, dtype=np.uint8),
            action=np.array(self._action, dtype=np.uint8),
            waits=self._waits,
            evictions=self._gpu.evictions,
            overshoot_bytes=self._gpu.overshoot_bytes,
            resident_share=np.array(resident_share),
            resident_bytes=np.array(self._resident_bytes, dtype=np.int64),
            prefetch=self._gpu.counts,
            compute=self._compute_spans,
            transfers={link.name: link.spans for link in (self._flash, self._pcie, self._cpu)},
        )


def durations(setup: Setup) -> tuple[list[list[list[float]]], list[list[list[float]]]]:
    """Seconds of copies and of reads: whole ones and pieces, of each form, of each key."""
    times = setup.times
    whole: list[Times | Form | Pieces] = [setup.forms.get(form, times) for form in range(3)]
    cut: list[Times | Form | Pieces] = [setup.pieces.get(form, times) for form in range(3)]
    copies = [[one.copy_s.tolist() for one in each] for each in (whole, cut)]
    return copies, [[one.read_s.tolist() for one in each] for each in (whole, cut)]


def _label(where: int, action: int) -> int:
    """HIT, LATE or MISS: by the form that is used, where both could be."""
    if where == HERE or (where == LOW_HERE and action == LOW):
        return HIT
    return LATE if where == COMING or (where == LOW_COMING and action == LOW) else MISS


def _always(_: Transfer) -> Admission:
    """Admission where there is always room."""
    return True
    yield  # a generator, as the others are
