"""The training loop: one function that reads from top to bottom."""

from __future__ import annotations

import copy
import math
import resource
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from diffretouch.config import Train
from diffretouch.errors import UserError
from diffretouch.training.objective import Objective, parts
from diffretouch.training.optimisers import new_optimiser
from diffretouch.training.ranks import agreed, meet
from diffretouch.training.resume import LEAVES_AFTER_S, CutShort, States, Stopped, stop_requests

SAY_EVERY_S = 10.0
LOOK_EVERY = 10
"""Steps between looks at the losses and at the wish to stop, at most: each look waits for the GPU."""
LOOK_EVERY_MS = 2000
"""Where ten steps take longer: a run that is asked to stop leaves within 30 seconds, its save included."""


def fit(
    net: nn.Module,
    objective: Objective,
    groups: list[dict[str, Any]],
    settings: Train,
    accelerator: Accelerator,
    states: States,
    validate: Callable[[nn.Module, int, Callable[[], bool]], dict[str, float]],
    on_point: Callable[[dict[str, float]], None],
) -> None:
    """Train `net` in place; its weights end as their exponential moving average.

    Args:
        net: on the accelerator's device.
        objective: its losses.
        groups: its parameters with their learning rates, as optimisers take them.
        settings: the `train` section.
        accelerator: this process among those that train together.
        states: where the run is taken up again, and kept.
        validate: what the averaged network achieves after so many steps, asked of the first process alone. It looks at
            its last argument between photos, and raises CutShort where that says that the process is asked to stop.
        on_point: takes each point of the curves, also those of an earlier, interrupted run.

    Raises:
        UserError: the loss is not finite, or diverges.
        Stopped: SIGTERM or Ctrl-C, after the state was saved where there was time for it.
    """
    device, first_process = accelerator.device, accelerator.is_main_process
    averaged = copy.deepcopy(net)
    pairs = list(averaged.parameters()), list(net.parameters())
    average = get_ema_multi_avg_fn(settings.ema_decay)
    optimiser = new_optimiser(groups, settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, settings))
    kept: dict[str, Any] = {"net": net, "averaged": averaged, "optimiser": optimiser, "schedule": schedule}
    first, history, window = 0, list[dict[str, float]](), list[dict[str, float]]()
    if (state := states.newest()) is not None:
        first, history, window = state["step"], state["history"], state["window"]
        for name, part in kept.items():
            part.load_state_dict(state.pop(name))
        _say(accelerator, f"going on from step {first} of {settings.steps}")
    if (farthest := agreed(accelerator, first)) + agreed(accelerator, -first):
        raise UserError(
            f"the processes found saved states of different steps, {first} here and up to {farthest} elsewhere: all "
            f"must see the same files in {states.folder}, and have the same versions of packages"
        )
    for point in history:
        on_point(point)
    saved = first
    model = accelerator.prepare(net)
    trained = [parameter for group in optimiser.param_groups for parameter in group["params"]]

    def state_now() -> dict[str, Any]:
        return {"history": history, "window": window, **{n: p.state_dict() for n, p in kept.items()}}

    def save(step: int) -> None:
        nonlocal saved
        if first_process:
            states.save(step, state_now())
        meet(accelerator)
        saved = step

    def fits() -> bool:
        # the first process, which writes, knows whether there is time for it
        return bool(agreed(accelerator, int(first_process and states.fits(state_now()))))

    def close(point: dict[str, float]) -> int:
        """Measure the network where that is due, and put the window's point on the curves; 0, or the signal that came
        meanwhile and left all that undone.
        """
        nonlocal window
        step, measured, unfinished = int(point["step"]), dict[str, float](), 0
        if step % settings.validate_every < settings.log_every or step == settings.steps:
            if first_process:
                try:
                    measured = validate(averaged, step, lambda: bool(stops))
                except CutShort:
                    unfinished = stops[0]
            if unfinished := agreed(accelerator, unfinished):
                return unfinished
        history.append(point | {name: round(value, 4) for name, value in measured.items()})
        window = []
        on_point(history[-1])
        return 0

    total = settings.batch_size * settings.accumulation * accelerator.num_processes
    pending: list[dict[str, Tensor]] = []
    started = said = looked = time.monotonic()
    look_every = 1
    with stop_requests(LEAVES_AFTER_S) as stops:
        # a state of a step with a point is kept before the network is measured, which may take long
        left = window and _is_due(first, settings.log_every, settings)
        if left and (stop := close(_point(window, first, schedule, settings, history))):
            raise _stopped(accelerator, stop, first, saved)
        for step in range(first, settings.steps):
            optimiser.zero_grad(set_to_none=True)
            of_step: list[dict[str, Tensor]] = []
            shares = [*parts(step, settings.batch_size, settings.accumulation, *_place(accelerator))]
            for share in shares:
                with accelerator.no_sync(model) if share is not shares[-1] else nullcontext():
                    losses = objective.losses(model, share)
                    accelerator.backward(losses["loss"] / len(shares))
                of_step.append({name: value.detach() for name, value in losses.items()})
            norm = nn.utils.clip_grad_norm_(trained, settings.clip_norm)
            optimiser.step()
            schedule.step()
            # torch's AveragedModel would ask the GPU how many steps it has averaged, and so wait for each
            if step:
                average(*pairs, None)
            else:
                averaged.load_state_dict(net.state_dict())
            means = {name: torch.stack([p[name] for p in of_step]).mean() for name in of_step[0]}
            pending.append({**means, "gradient_norm": norm.detach()})

            done = step + 1
            is_point, is_save = (_is_due(done, n, settings) for n in (settings.log_every, settings.checkpoint_every))
            if not (is_point or is_save or len(pending) >= look_every or device.type == "cpu"):
                continue
            window += _finite(accelerator, pending, done, settings)
            now = time.monotonic()
            step_ms = agreed(accelerator, int(1000 * (now - looked) / len(pending)))
            look_every = max(1, min(LOOK_EVERY, LOOK_EVERY_MS // max(1, step_ms)))
            pending, looked = [], now
            stop = agreed(accelerator, stops[0] if stops else 0)
            ended = _point(window, done, schedule, settings, history) if is_point else None
            if fits() if stop else is_save:
                save(done)
            if ended and not stop:
                stop = close(ended)
                if stop and saved < done and fits():
                    save(done)
            if stop:
                raise _stopped(accelerator, stop, done, saved)
            now = time.monotonic()
            if now - said > SAY_EVERY_S or done == settings.steps:
                said, last = now, (window or history)[-1]
                rate = (done - first) / (said - started)
                shown = ", ".join(f"{name} {last[name]:.4f}" for name in losses)
                _say(
                    accelerator,
                    f"train {done}/{settings.steps}: {shown}; {rate * total:.1f} ground truths/s, "
                    f"{_memory(device):.1f} GiB, {(settings.steps - done) / rate:.0f} s left",
                )
    net.load_state_dict(averaged.state_dict())
    net.eval()


def _is_due(step: int, every: int, settings: Train) -> bool:
    return step % every == 0 or step == settings.steps


def _point(
    window: list[dict[str, float]],
    step: int,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    settings: Train,
    history: list[dict[str, float]],
) -> dict[str, float]:
    """The curves' point after so many steps: means over the window. UserError where it diverges."""
    point = {"step": step} | {name: round(_mean(window, name), 6) for name in window[0]}
    point["learning_rate"] = round(float(schedule.get_last_lr()[0]), 8)
    if step > settings.warmup_steps:
        _refuse_divergence(point, (history or [point])[0], settings)
    return point


def _refuse_divergence(point: dict[str, float], first: dict[str, float], settings: Train) -> None:
    """UserError where the noise loss is far beyond an untrained network's, 1, or the loss beyond the first point's."""
    for name, usual, whose in (("eps", 1.0, "an untrained network's"), ("loss", first["loss"], "the first point's")):
        if point.get(name, 0.0) > settings.divergence * usual:
            raise UserError(
                f"training diverges: {name} is {point[name]:.3g} before step {point['step']:.0f}, {whose} is "
                f"{usual:.3g} (train.divergence {settings.divergence:g}): lower train.learning_rate"
            )


def _place(accelerator: Accelerator) -> tuple[int, int]:
    return accelerator.process_index, accelerator.num_processes


def _finite(
    accelerator: Accelerator, pending: list[dict[str, Tensor]], done: int, settings: Train
) -> list[dict[str, float]]:
    """The losses of the last steps and the norms of their gradients, before clipping, as numbers: means over all
    processes. UserError where one is not finite: weights that it made were not saved.
    """
    names = list(pending[0])
    table = torch.stack([torch.stack([losses[name] for name in names]) for losses in pending])
    if accelerator.num_processes > 1:
        table = accelerator.reduce(table, "mean")
    rows = [dict(zip(names, row, strict=True)) for row in table.tolist()]
    for step, row in enumerate(rows, done - len(rows)):
        if bad := [name for name in names if not math.isfinite(row[name])]:
            raise UserError(
                f"{', '.join(f'{name} is {row[name]}' for name in bad)} at step {step}: lower "
                f"train.learning_rate ({settings.learning_rate:g}); the last saved state is kept"
            )
    return rows


def _stopped(accelerator: Accelerator, stop: int, done: int, saved: int) -> Stopped:
    again = f", the {done - saved} steps since step {saved} will be done again" if saved < done else ""
    _say(accelerator, f"stopped at step {done}{again}: run the same command to go on from here")
    return Stopped(128 + stop)


def _mean(window: list[dict[str, float]], name: str) -> float:
    return math.fsum(row[name] for row in window) / len(window)


def _memory(device: torch.device) -> float:
    """Most GiB held so far: on the GPU, or by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _say(accelerator: Accelerator, text: str) -> None:
    if accelerator.is_main_process:
        print(text, file=sys.stderr, flush=True)


def _rate(step: int, settings: Train) -> float:
    """Linear warm-up, then a cosine to zero at the last step."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    share = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
