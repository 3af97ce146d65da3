"""The figures of docs/label-studio.md."""

from typing import Any


def table(result: dict[str, Any]) -> str:
    """Returns what each step took in a real Label Studio."""
    pushed, asked = f"{result['pushed']:,}", f"{result['backend_tasks']:,}"
    rows = {
        f"push {pushed} images: tasks, predictions, columns": "push_s",
        "push them again: nothing to do": "push_again_s",
        f"push {pushed} predictions of a new model": "push_new_model_s",
        f"the backend answers {asked} tasks, half of them from the server": "backend_retrieve_s",
        f"pull {result['answers']:,} answers, and write 60,000 images for training": "pull_s",
    }
    machine, versions = result["machine"], result["versions"]
    return "\n".join(
        [
            "| | s |",
            "|---|---|",
            *(f"| {what} | {result[key]:,.1f} |" for what, key in rows.items()),
            "",
            f"`{result['command']}`, Label Studio {versions['label-studio']} with SQLite on the same machine, commit "
            f"{result['commit'][:12]}, {machine['cores']} cores of {machine['cpu']}; {result['note']}.",
        ]
    )
