"""What `probe` and `steer` share: prompts with labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import headatlas as ha
    from headatlas.methods.probing import Labels


def labelled(
    model: ha.Model, task: str | None, file: str | None, label: str | None, group: str | None, n: int, seed: int
) -> tuple[ha.Batch, Labels]:
    """Prompts of a file or a task, and their classes and groups. Raises BadInput unless exactly one source is given."""
    from headatlas.errors import BadInput
    from headatlas.methods.probing import labels_of
    from headatlas.prompts_file import read_prompts
    from headatlas.task import find_task

    if (task is None) == (file is None):
        raise BadInput(
            "Say what the prompts are.",
            "Give either --prompts FILE.jsonl with text and label, or --task NAME --label NAME.",
        )
    if file is not None:
        batch = read_prompts(file, model.tokenizer)
        if "label" not in batch.labels:
            raise BadInput(f"{file} has no labelled texts.", 'Lines need "text" and "label".')
        return batch, labels_of(batch, label or "label", group)
    found = find_task(str(task))
    batch = found(model.tokenizer, n, seed)
    if label is None:
        known = ", ".join(name for name, value in batch.labels.items() if value.ndim == 1) or "none"
        raise BadInput(f"Task {found.name} needs --label.", f"Its labels are: {known}.")
    return batch, labels_of(batch, label, group)
