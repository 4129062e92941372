"""What a benchmark ran on, in a line: figures of other machines are other figures."""

from importlib.metadata import version

from tl_core.ml.machine import describe_machine

VERSIONS_OF = ("torch", "transformers", "pillow")


def describe() -> str:
    machine = describe_machine()
    versions = ", ".join(f"{name} {version(name)}" for name in VERSIONS_OF)
    return f"{machine['name']}, {machine['cores']} cores, {machine['threads']} threads, {machine['device']}; {versions}"
