"""The progress bar over batches: it shows all of them, and its end waits for nothing."""

import threading

from rich.progress import Progress

from tightframe.sources.source import TRAIN, with_progress


def test_all_batches_with_and_without_a_bar() -> None:
    for show in (True, False):
        assert list(with_progress(iter(range(5)), TRAIN, 5, show=show)) == list(range(5))


def test_an_abandoned_bar_ends_while_another_is_drawn() -> None:
    """As when the garbage collector ends a failed measurement in the middle of a drawing."""

    def abandon() -> None:
        with Progress() as outer:
            abandoned = with_progress(iter(range(5)), TRAIN, 5, show=True)
            assert next(abandoned) == 0
            with outer.live._lock:
                abandoned.close()

    thread = threading.Thread(target=abandon, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
