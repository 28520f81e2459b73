"""Learning rates by iteration, as the programs have them."""

from collections.abc import Callable
from math import exp, inf

from fer.darknet.formats.section import Section, integer, number, numbers
from fer.errors import InputError

# float32 holds no more.
_FLOAT32_MAX = 3e38


def rate_schedule(net: Section) -> Callable[[int], float]:
    """Return the function from an iteration, the first being 1, to the learning rate of its update, by a [net].

    Below burn_in it is learning_rate * (iteration / burn_in) ** power, and then by policy: constant, step, steps, exp,
    poly and sig (also sigmoid).

    Raises:
        InputError: another policy, or an option of it that is missing, no number or negative, with its line; from the
            function a rate that is no float32.
    """
    start, power = number(net, "learning_rate", 0.001), number(net, "power", 4)
    for key, value in (("learning_rate", start), ("power", power)):
        if value < 0:
            raise InputError(f"{net.where}: {key}={value:g} is negative")
    burn_in = integer(net, "burn_in", 0)
    later = _policy(net, start, power)

    def rate(iteration: int) -> float:
        try:
            value = start * (iteration / burn_in) ** power if iteration < burn_in else later(iteration)
        except OverflowError:
            value = inf
        if not abs(value) < _FLOAT32_MAX:
            raise InputError(f"{net.where}: the learning rate of iteration {iteration:,} is over {_FLOAT32_MAX:g}")
        return value

    return rate


def _policy(net: Section, start: float, power: float) -> Callable[[int], float]:
    policy = net.options.get("policy", "constant")
    if policy == "constant":
        return lambda iteration: start
    if policy == "poly":
        max_batches = integer(net, "max_batches")
        return lambda iteration: start * (1 - iteration / max_batches) ** power
    if policy == "steps":
        steps, scales = numbers(net, "steps"), numbers(net, "scales")
        if not steps or len(steps) != len(scales):
            raise InputError(f"{net.where}: policy=steps needs as many scales= as steps=")

        def stepped(iteration: int) -> float:
            rate = start
            for step, scale in zip(steps, scales, strict=True):
                if step > iteration:
                    break
                rate *= scale
            return rate

        return stepped
    if policy == "exp":
        gamma = number(net, "gamma", 1)
        return lambda iteration: start * gamma**iteration
    step = integer(net, "step", 1)
    if policy == "step":
        if step < 1:
            raise InputError(f"{net.where}: step={step} is not positive")
        scale = number(net, "scale", 1)
        return lambda iteration: start * scale ** (iteration // step)
    if policy in ("sig", "sigmoid"):
        gamma = number(net, "gamma", 1)
        return lambda iteration: start / (1 + exp(min(700.0, gamma * (iteration - step))))
    raise InputError(
        f"{net.where}: policy={policy} is not supported with darknet.engine=torch: set constant, step, steps, exp, "
        "poly or sigmoid"
    )
