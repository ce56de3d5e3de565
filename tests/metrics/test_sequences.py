"""Lines that belong together: epochs with their bars, evaluations, tables, restarts, ranks and pods."""

from __future__ import annotations

from typing import Any

import pytest
from support import metric_rows

from aksgpu import metrics
from aksgpu.errors import InvalidInput
from aksgpu.metrics.table import POSITION_COLUMNS


def rows(text: str) -> list[dict[str, Any]]:
    return metric_rows.rows(metrics.parse(text))


def test_nested_bars() -> None:
    log = (
        "Epochs:   0%|          | 0/2 [00:00<?, ?it/s]\r"
        "Train:  50%|##   | 1/2 [00:00<00:00, loss=0.5]\rTrain: 100%|####| 2/2 [00:01<00:00, loss=0.4]\r"
        "Epochs:  50%|###   | 1/2 [00:01<00:02, val_loss=0.6]\r"
        "Train:  50%|##   | 1/2 [00:00<00:00, loss=0.3]\rTrain: 100%|####| 2/2 [00:01<00:00, loss=0.2]\r"
        "Epochs: 100%|######| 2/2 [00:02<00:00, val_loss=0.5]\n"
    )
    assert rows(log) == [
        {"step": 2, "epoch": 0, "loss": 0.4},
        {"step": 1, "epoch": 1, "val_loss": 0.6},
        {"step": 2, "epoch": 1, "loss": 0.2},
        {"step": 2, "epoch": 2, "val_loss": 0.5},
    ]


def test_an_epoch_printed_before_its_bar() -> None:
    log = "".join(
        f"Epoch {epoch}/2\n\r 50%|##  | 1/2 [00:00<00:00, loss=0.9]\r100%|####| 2/2 [00:01<00:00, loss=0.{epoch}]\n"
        for epoch in (1, 2)
    )
    assert rows(log) == [{"step": 2, "epoch": 1, "loss": 0.1}, {"step": 2, "epoch": 2, "loss": 0.2}]


def test_a_bar_that_shows_the_epoch_before_until_it_has_new_values() -> None:
    log = (
        "Epoch 0: 100%|##| 2/2 [00:01<00:00, loss=0.5, val_loss=0.6]\n"
        "Epoch 1:   0%|  | 0/2 [00:00<?, ?it/s, loss=0.5, val_loss=0.6]\r"
        "Epoch 1:  50%|# | 1/2 [00:00<00:00, loss=0.4, val_loss=0.6]"
    )
    assert rows(log) == [
        {"step": 2, "epoch": 0, "loss": 0.5, "val_loss": 0.6},
        {"step": 1, "epoch": 1, "loss": 0.4},
    ], "the validation loss is the epoch's before"


def test_repeated_calls_of_keras_fit() -> None:
    log = (
        "Epoch 1/1\n10/10 [=====] - 3s 2ms/step - loss: 0.29\n3/3 [=====] - 0s 1ms/step - loss: 0.14\n"
        "Epoch 1/1\n10/10 [=====] - 3s 2ms/step - loss: 0.19\n3/3 [=====] - 0s 1ms/step - loss: 0.13\n"
    )
    assert rows(log) == [
        {"step": 10, "epoch": 1, "loss": 0.29},
        {"step": 3, "eval_loss": 0.14},
        {"step": 10, "epoch": 1, "loss": 0.19},
        {"step": 3, "eval_loss": 0.13},
    ]


def test_keras_without_headers_of_epochs() -> None:
    log = (
        "1875/1875 [====] - 3s 2ms/step - loss: 0.29 - accuracy: 0.91\n"
        "313/313 [====] - 0s 1ms/step - loss: 0.14 - accuracy: 0.95\n"
    )
    assert rows(log) == [
        {"step": 1875, "loss": 0.29, "accuracy": 0.91},
        {"step": 313, "eval_loss": 0.14, "eval_accuracy": 0.95},
    ]


def test_pytorch_tutorials() -> None:
    log = (
        "Epoch 1\n-------------------------------\nloss: 2.303494  [   64/60000]\n"
        "Test Error: \n Accuracy: 44.2%, Avg loss: 2.158019 \n\n"
        "Epoch 1/24\n----------\ntrain Loss: 0.4000 Acc: 0.8000\nval Loss: 0.2000 Acc: 0.9500\n"
    )
    assert rows(log) == [
        {"step": 64, "epoch": 1, "loss": 2.303494},
        {"epoch": 1, "test_accuracy": 0.442, "test_loss": 2.158019},
        {"epoch": 1, "train_Loss": 0.4, "train_Acc": 0.8},
        {"epoch": 1, "val_Loss": 0.2, "val_Acc": 0.95},
    ]


def test_a_table_with_its_header() -> None:
    log = "Step\tImg/sec\ttotal_loss\ttop_1_accuracy\n10\timages/sec: 52.5 +/- 0.1 (jitter = 0.4)\t7.593\t0.002\n"
    assert rows(log) == [{"step": 10, "images/sec": 52.5, "total_loss": 7.593, "top_1_accuracy": 0.002}]


def test_the_best_round_that_is_printed_again() -> None:
    log = "[1]\tvalid's auc: 0.8\n[2]\tvalid's auc: 0.7\nEarly stopping, best iteration is:\n[1]\tvalid's auc: 0.8\n"
    assert [row["step"] for row in rows(log)] == [1, 2]


def test_the_best_round_of_xgboost_that_is_printed_again() -> None:
    log = "[0]\teval-rmse:0.8\n[1]\teval-rmse:0.9\nStopping. Best iteration:\n[0]\teval-rmse:0.8\n"
    assert [row["step"] for row in rows(log)] == [0, 1]


def test_ultralytics_with_masks_and_after_the_last_epoch() -> None:
    log = (
        "      Epoch    GPU_mem   box_loss   seg_loss  Instances       Size\n"
        "        1/1      2.5G      1.204      2.104         12        640: 100%|##| 4/4 [00:01<00:00,  2.1it/s]\n"
        "     Class     Images  Instances      Box(P          R      mAP50  mAP50-95)     Mask(P          R      mAP50"
        "  mAP50-95): 100%|##| 1/1\n"
        "       all          8          8        0.1        0.2        0.3        0.4        0.5        0.6        0.7"
        "        0.8\n"
        "1 epochs completed in 0.001 hours.\n"
        "       all          8          8        0.1        0.2        0.3        0.4        0.5        0.6        0.7"
        "        0.9\n"
    )
    found = rows(log)
    assert found[0] == {"epoch": 1, "box_loss": 1.204, "seg_loss": 2.104}
    assert found[1]["mAP50-95(B)"] == 0.4
    assert found[1]["mAP50-95(M)"] == 0.8
    assert found[1]["epoch"] == 1
    assert "epoch" not in found[2]


def test_pods_and_ranks_keep_their_own_epoch() -> None:
    log = (
        "[pod/train-abc-mtd44/main] Epoch 1\n[pod/train-abc-x2b4c/main] Epoch 7\n"
        "[pod/train-abc-mtd44/main] val loss 0.5\n[pod/train-abc-x2b4c/main] val loss 0.6\n"
        "[rank0]: Epoch 3\n[rank1]: Epoch 4\n[rank0]: val loss 0.3\n[rank1]: val loss 0.4\n"
    )
    assert rows(log) == [
        {"epoch": 1, "pod": "train-abc-mtd44", "val_loss": 0.5},
        {"epoch": 7, "pod": "train-abc-x2b4c", "val_loss": 0.6},
        {"epoch": 3, "rank": 0, "val_loss": 0.3},
        {"epoch": 4, "rank": 1, "val_loss": 0.4},
    ]


def test_positions_given_by_the_caller_are_kept() -> None:
    reader = metrics.MetricsReader()
    reader.feed("step=1 loss=0.5\nstep=2 lo", pod="a", index=0, attempt=0)
    reader.feed("step=1 loss=0.7\n", pod="b", index=1, attempt=0)
    reader.feed("ss=0.4\n", pod="a", index=0, attempt=0)
    reader.feed("step=1 loss=0.6\n", pod="a", index=0, attempt=1)
    frame = reader.frame()
    columns = ["step", "pod", "index", "attempt", "loss"]
    assert frame[columns].to_numpy().tolist() == [
        [1, "a", 0, 0, 0.5],
        [1, "b", 1, 0, 0.7],
        [2, "a", 0, 0, 0.4],
        [1, "a", 0, 1, 0.6],
    ]


def test_a_line_without_a_step_has_the_newest_step_before_it() -> None:
    log = "val loss 0.9\nstep 0: loss 0.8\nval loss 0.7\nstep 10: loss 0.6\nval loss 0.5\ntest acc 0.4\n"
    assert rows(log) == [
        {"step": 0, "val_loss": 0.9},
        {"step": 0, "loss": 0.8},
        {"step": 0, "val_loss": 0.7},
        {"step": 10, "loss": 0.6},
        {"step": 10, "val_loss": 0.5},
        {"step": 10, "test_acc": 0.4},
    ]
    assert metrics.parse(log).attrs["step_kind"] == {"count": 1, "step": 5}


def test_lines_are_counted_if_only_the_first_one_has_its_step() -> None:
    log = "step 5: loss 0.8\n" + "loss 0.7\n" * 3
    assert [row["step"] for row in rows(log)] == [5, 0, 1, 2]


def test_an_evaluation_after_an_epoch_without_a_bar() -> None:
    log = "Epoch 2/2\n - 11s - loss: 0.29 - acc: 0.91\n10/10 [=====] - 0s 1ms/step - loss: 0.14 - acc: 0.95\n"
    assert (
        rows(log * 2)
        == [
            {"epoch": 2, "loss": 0.29, "acc": 0.91},
            {"step": 10, "eval_loss": 0.14, "eval_acc": 0.95},
        ]
        * 2
    )


def test_patterns_are_added() -> None:
    log = "epoch=1 loss=0.5 ppl=12.5\nmy own form 7 of 9\n"
    frame = metrics.parse(log, patterns={"perplexity": r"ppl=([\d.]+)", "own": r"own form (\d+)"})
    assert frame["loss"].tolist()[0] == 0.5
    assert frame["perplexity"].tolist()[0] == 12.5
    assert frame["own"].tolist()[1] == 7
    sagemaker = [{"Name": "ppl", "Regex": r"ppl=([\d.]+)"}, {"Name": "loss", "Regex": r"loss=([\d.]+)"}]
    assert metrics.parse(log * 20, patterns=sagemaker)["ppl"].tolist() == [12.5] * 20


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({"a": "("}, "the pattern of 'a' must be a regular expression, got '\\('"),
        ({"a": "loss"}, "the pattern of 'a' must have one group, got 0"),
        ({"a": "(a)(b)"}, "the pattern of 'a' must have one group, got 2"),
        ({"a": 5}, "the pattern of 'a' must be a regular expression, got 5"),
    ],
)
def test_bad_patterns(patterns: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        metrics.parse("", patterns=patterns)


def test_more_names_than_columns() -> None:
    log = "".join(f'{{"step": 1, "m{number}": 0.5}}\n' for number in range(300))
    frame = metrics.parse(log)
    assert len(frame.columns) == len(POSITION_COLUMNS) + 200
    assert len(frame.attrs["dropped_names"]) == 100
    assert sum(frame.attrs["dropped_names"].values()) == 100


def test_unread_lines_are_counted_and_shown() -> None:
    log = "hello\n" + "".join(f"processed {number} files\n" for number in range(50))
    frame = metrics.parse(log)
    assert frame.attrs["unread"]["lines"] == 50
    assert frame.attrs["unread"]["first"] == [f"processed {number} files" for number in range(5)]
