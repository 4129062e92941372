"""Which options of a training mean nothing together, and the sentence for each.

A rule about one option alone is in its definition. Must not know what the options do, nor where values come from.
"""

from typing import TYPE_CHECKING

from tl_core.options import flag, options_of

if TYPE_CHECKING:
    from tl_core.config import TrainConfig

# What only gradient steps have; a frozen head has them with --head-solver trainer.
OF_STEPS = ("epochs", "max_steps", "batch_size", "learning_rate", "weight_decay")
# What only the training of a backbone has.
OF_TRAINED_BACKBONES = (
    *("minutes", "layer_decay", "warmup_steps", "max_grad_norm", "label_smoothing", "patience"),
    *("drop_path", "dropout", "augment", "mirror", "erase", "mix", "activation_checkpointing", "thoroughness"),
    *("teacher", "teacher_weight"),
)
OF_GRADIENT_STEPS = (*OF_STEPS, *OF_TRAINED_BACKBONES)


def contradictions(config: "TrainConfig") -> list[str]:
    """A sentence for each option that has no meaning beside the others."""
    changed = {name for name in config.changed() if name not in ("data", "strategy")}
    problems = []
    of_views = ("mirror",) if config.views else ()
    if not config.trains_backbone:
        if config.head_solver == "exact":
            for name in OF_STEPS:
                if name in changed:
                    problems.append(
                        f"{flag(name)} has no meaning for --strategy frozen with the exact solver, which takes no "
                        "gradient steps; leave it out or add --head-solver trainer"
                    )
        for name in OF_TRAINED_BACKBONES:
            if name in changed and (name, getattr(config, name)) != ("augment", "none") and name not in of_views:
                problems.append(
                    f"{flag(name)} cannot be used with --strategy frozen, whose backbone does not train and sees "
                    "each image once; leave it out"
                )
    elif config.head_solver == "trainer":
        problems.append(f"--head-solver belongs to --strategy frozen; leave it out for {config.strategy}")
    refused = () if config.trains_backbone else OF_TRAINED_BACKBONES
    problems += [
        f"{flag(option.name)} has no meaning without {flag(option.needs)}; give that too, or leave it out"
        for option in options_of(type(config))
        if option.needs and option.name in changed and option.needs not in changed and option.name not in refused
    ]
    if config.views and config.surely_trains:
        problems.append(f"--views belongs to --strategy frozen; leave it out for {config.strategy}, which augments")
    if config.unfreeze_blocks is not None and config.strategy != "last-blocks":
        problems.append(f"--unfreeze-blocks belongs to --strategy last-blocks; leave it out for {config.strategy}")
    if config.strategy == "scratch":
        if config.layer_decay is not None:
            problems.append("--layer-decay cannot be used with --strategy scratch, whose blocks all know nothing")
        if config.control:
            problems.append("--control is --strategy scratch itself; leave it out, or choose another strategy")
    if config.thoroughness != "standard":
        problems += [
            f"--thoroughness changes how many steps are derived, and {flag(name)} gives them; leave one of them out"
            for name in ("epochs", "max_steps")
            if name in changed
        ]
    if config.warmup_steps and config.max_steps and config.warmup_steps >= config.max_steps:
        problems.append(
            f"--warmup-steps {config.warmup_steps} leaves nothing of --max-steps {config.max_steps} for the learning "
            "rate to be at its peak; give fewer"
        )
    if config.augment == "none":
        for name in ("erase", "mix"):
            if name in changed:
                problems.append(f"{flag(name)} cannot be used with --augment none, which switches it off")
        if config.mirror == "yes":
            problems.append("--mirror yes cannot be used with --augment none, which switches it off")
    return problems
