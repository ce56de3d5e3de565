"""Lines of frameworks, written from their sources, and the row of each. Then lines that have no metrics."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

import pytest
from support import metric_rows

from aksgpu import metrics
from aksgpu.metrics import formats

DATA = Path(__file__).parents[1] / "data"


def rows(text: str) -> list[dict[str, Any]]:
    """Return each row of a log: its position and its metrics."""
    return metric_rows.rows(metrics.parse(text), ("step", "epoch", "rank"))


# One line each, with its one row.
LINES: dict[str, dict[str, Any]] = {
    # JSON
    '{"step": 3, "loss": 0.41}': {"step": 3, "loss": 0.41},
    '{"epoch": 1, "train": {"loss": 0.5, "acc": "0.9"}}': {"epoch": 1, "train/loss": 0.5, "train/acc": 0.9},
    '{"checkpoint_path": "", "global_step": "7", "loss": "0.2", "timestamp": 1638422847.28, "trial": "0"}': {
        "step": 7,
        "loss": 0.2,
    },
    '{"level":"info","ts":1700000000.1,"msg":"eval","accuracy":0.91,"port":8080}': {"step": 0, "accuracy": 0.91},
    '{"levelname": "INFO", "message": "epoch 3: loss=0.41"}': {"epoch": 3, "loss": 0.41},
    '{"epoch": 1, "update": 0.53, "loss": "11.5", "ppl": "2896", "num_updates": "100", "lr": "1e-05"}': {
        "step": 100,
        "epoch": 1,
        "loss": 11.5,
        "ppl": 2896,
        "lr": 1e-05,
    },
    'json_stats: {"iter": 55080, "loss": 0.5, "mem": 3084, "eta": "0:21:51"}': {"step": 55080, "loss": 0.5},
    'epoch 3 step 7: {"loss": 0.5}': {"step": 7, "epoch": 3, "loss": 0.5},
    # Hugging Face, Accelerate
    "{'loss': 0.6931, 'learning_rate': 5e-05, 'epoch': 0.5}": {"epoch": 0.5, "loss": 0.6931, "learning_rate": 5e-05},
    "{'loss': '0.6931', 'grad_norm': '1.2', 'epoch': '1'}": {"epoch": 1, "loss": 0.6931, "grad_norm": 1.2},
    "{'eval_loss': 0.41, 'eval_runtime': 3.5, 'eval_samples_per_second': 115.7, 'epoch': 1.0}": {
        "epoch": 1,
        "eval_loss": 0.41,
        "eval_samples_per_second": 115.7,
    },
    "epoch 2: {'accuracy': 0.68, 'f1': 0.81}": {"epoch": 2, "accuracy": 0.68, "f1": 0.81},
    "epoch 0: {'accuracy': np.float64(0.84)}": {"epoch": 0, "accuracy": 0.84},
    "{'loss': tensor(0.41, device='cuda:0'), 'epoch': 1}": {"epoch": 1, "loss": 0.41},
    "  eval_accuracy           =     0.8603": {"step": 0, "eval_accuracy": 0.8603},
    # Keras
    "938/938 - 3s - 3ms/step - accuracy: 0.9 - loss: 2.1e-04": {"step": 938, "accuracy": 0.9, "loss": 2.1e-04},
    "100/Unknown - 2s 20ms/step - loss: 0.5": {"step": 100, "loss": 0.5},
    "1875/1875 [==============================] - 3s 2ms/step - loss: nan - accuracy: 0.0987": {
        "step": 1875,
        "accuracy": 0.0987,
    },
    # Lightning, tqdm, rich
    "Epoch 3: 100%|####| 10/10 [00:01<00:00, 8.0it/s, v_num=0, train_loss_step=0.22, train_loss_epoch=0.31]": {
        "step": 10,
        "epoch": 3,
        "train_loss_step": 0.22,
        "train_loss_epoch": 0.31,
    },
    "Epoch 0/1  ━━━━━━━━━━ 10/10 0:00:00 • 0:00:00 123.45it/s v_num: 0.000 loss: 0.41": {
        "step": 10,
        "epoch": 0,
        "loss": 0.41,
    },
    "loss: 0.3412:  45%|####5     | 45/100 [00:01<00:01, 40.1it/s]": {"step": 45, "loss": 0.3412},
    "Epoch 2 - loss 0.3412 - acc 91.2%: 45%|####5     | 45/100 [00:01<00:01, 40.1it/s]": {
        "step": 45,
        "epoch": 2,
        "loss": 0.3412,
        "acc": 0.912,
    },
    "1|10|Loss: 1.234:  10%|#         | 10/100 [00:10<01:30, 1.0s/it]": {"step": 10, "epoch": 1, "Loss": 1.234},
    "120it [00:03, 38.1it/s, loss=0.3]": {"step": 120, "loss": 0.3},
    "│         test_acc          │    0.9100000262260437     │": {"step": 0, "test_acc": 0.9100000262260437},
    # PyTorch
    "Train Epoch: 1 [640/60000 (1%)]\tLoss: 2.213470": {"step": 640, "epoch": 1, "Loss": 2.21347},
    "Test set: Average loss: 0.0555, Accuracy: 98.24%": {"step": 0, "test_loss": 0.0555, "test_accuracy": 0.9824},
    "loss: 2.301494  [ 6464/60000]": {"step": 6464, "loss": 2.301494},
    " Accuracy: 44.2%, Avg loss: 2.158001 ": {"step": 0, "test_accuracy": 0.442, "test_loss": 2.158001},
    "[1,  2000] loss: 2.215": {"step": 2000, "epoch": 1, "loss": 2.215},
    "Accuracy of the network on the 10000 test images: 55 %": {"step": 0, "test_accuracy": 0.55},
    "====> Epoch: 3 Average loss: 164.1321": {"epoch": 3, "average_loss": 164.1321},
    "| epoch   1 |   200/ 2983 batches | lr 20.00 | ms/batch 12.33 | loss  7.63 | ppl  2062.50": {
        "step": 200,
        "epoch": 1,
        "lr": 20,
        "loss": 7.63,
        "ppl": 2062.5,
    },
    "| end of epoch   1 | time: 42.03s | valid loss  5.11 | valid ppl   165.60": {
        "epoch": 1,
        "valid_loss": 5.11,
        "valid_ppl": 165.6,
    },
    "[0/25][100/1583]\tLoss_D: 1.7500\tLoss_G: 4.3100\tD(x): 0.3000\tD(G(z)): 0.5000 / 0.0100": {
        "step": 100,
        "epoch": 0,
        "Loss_D": 1.75,
        "Loss_G": 4.31,
    },
    "[Epoch 1/200] [Batch 100/938] [D loss: 0.69] [G loss: 0.71]": {
        "step": 100,
        "epoch": 1,
        "D_loss": 0.69,
        "G_loss": 0.71,
    },
    "Epoch: [0]  [ 10/5005]  eta: 2:00:00  lr: 0.5  img/s: 80.5  loss: 6.9 (7.0)  acc1: 1.5 (0.1)  time: 1.4  data: 0.2"
    "  max mem: 3000": {
        "step": 10,
        "epoch": 0,
        "lr": 0.5,
        "img/s": 80.5,
        "loss": 6.9,
        "loss_avg": 7.0,
        "acc1": 1.5,
        "acc1_avg": 0.1,
    },
    "Train: 0 [  50/1251 (  4%)]  Loss: 6.94 (6.93)  Time: 1.23s, 207.1/s  (1.2s, 207.2/s)  LR: 1.000e-05": {
        "step": 50,
        "epoch": 0,
        "Loss": 6.94,
        "Loss_avg": 6.93,
        "LR": 1e-05,
    },
    "Test:  Acc@1 76.130 Acc@5 92.862": {"step": 0, "test_Acc@1": 76.13, "test_Acc@5": 92.862},
    # TensorFlow
    "INFO:tensorflow:loss = 2.3025, step = 101 (0.512 sec)": {"step": 101, "loss": 2.3025},
    "INFO:tensorflow:global_step/sec: 195.3": {"step": 0, "global_step/sec": 195.3},
    "INFO:tensorflow:Saving dict for global step 1000: accuracy = 0.97, global_step = 1000, loss = 0.1": {
        "step": 1000,
        "eval_accuracy": 0.97,
        "eval_loss": 0.1,
    },
    "INFO:tensorflow:Loss for final step: 0.0512.": {"step": 0, "final_loss": 0.0512},
    "10\timages/sec: 52.3 +/- 0.2 (jitter = 0.7)\t8.169": {"step": 10, "images/sec": 52.3, "total_loss": 8.169},
    "total images/sec: 328.07": {"step": 0, "total images/sec": 328.07},
    "Epoch 10, Loss: 0.31, Accuracy: 91.2, Test Loss: 0.44, Test Accuracy: 90.1": {
        "epoch": 10,
        "Loss": 0.31,
        "Accuracy": 91.2,
        "Test_Loss": 0.44,
        "Test_Accuracy": 90.1,
    },
    # Boosting
    "[0]\ttrain-logloss:0.48\teval-logloss:0.49": {"step": 0, "train-logloss": 0.48, "eval-logloss": 0.49},
    "[9]\ttrain-rmse:0.50000+0.00100\ttest-rmse:0.61000+0.00200": {"step": 9, "train-rmse": 0.5, "test-rmse": 0.61},
    "[3]#011train-rmse:8.1#011validation-rmse:8.2": {"step": 3, "train-rmse": 8.1, "validation-rmse": 8.2},
    "[3]\tvalidation_0-ndcg@5:0.7": {"step": 3, "validation_0-ndcg@5": 0.7},
    "[10]\tcv_agg's valid auc: 0.9 + 0.01": {"step": 10, "cv_agg valid auc": 0.9},
    "[LightGBM] [Info] Iteration:1, valid_1 auc : 0.9": {"step": 1, "valid_1 auc": 0.9},
    "5:\tlearn: 0.67\ttest: 0.68\tbest: 0.66 (3)\ttotal: 50ms\tremaining: 49.9s": {
        "step": 5,
        "learn": 0.67,
        "test": 0.68,
        "best": 0.66,
    },
    # Large models
    " iteration       10/  500000 | consumed samples:        10240 | elapsed time per iteration (ms): 12345.6 |"
    " learning rate: 1.500E-04 | global batch size:  1024 | lm loss: 6.100000E+00 | loss scale: 1.0 |"
    " grad norm: 1.200 | number of skipped iterations:   0 | number of nan iterations:   0 |": {
        "step": 10,
        "learning rate": 1.5e-4,
        "lm loss": 6.1,
        "loss scale": 1.0,
        "grad norm": 1.2,
    },
    " samples/sec: 31.2 | iteration 10/ 100 | learning rate: 1.5E-06 | flops per GPU: 51TFLOPS | lm_loss: 1.0E+01 |": {
        "step": 10,
        "learning rate": 1.5e-6,
        "lm_loss": 10.0,
    },
    " validation loss at iteration 1000 | lm loss value: 2.3E+00 | lm loss PPL: 1.0E+01 |": {
        "step": 1000,
        "validation lm loss value": 2.3,
        "validation lm loss PPL": 10.0,
    },
    "epoch=0/micro_step=10/global_step=10, RunningAvgSamplesPerSec=22.5, CurrSamplesPerSec=21.9, MemAllocated=1.5GB": {
        "step": 10,
        "SamplesPerSec": 21.9,
    },
    "2021-01-01 00:00:00 | INFO | train_inner | epoch 001:    100 / 1891 loss=11.5, ppl=2896.3, num_updates=100": {
        "step": 100,
        "epoch": 1,
        "loss": 11.5,
        "ppl": 2896.3,
    },
    "2021-01-01 00:00:00 | INFO | valid | epoch 001 | valid on 'valid' subset | loss 8.1 | ppl 274.4"
    " | num_updates 600": {
        "step": 600,
        "epoch": 1,
        "valid_loss": 8.1,
        "valid_ppl": 274.4,
    },
    "| epoch 005 | train loss 2.92 | train ppl 7.59 | s/checkpoint    7748 | bsz    32 | lr 0.001000 | clip 100%": {
        "epoch": 5,
        "train_loss": 2.92,
        "train_ppl": 7.59,
        "lr": 0.001,
        "clip": 1,
    },
    "step    10 | loss: 9.5012 | lr 1.2e-5 | norm: 2.1 | dt: 338.2ms | tok/sec: 1500.5": {
        "step": 10,
        "loss": 9.5012,
        "lr": 1.2e-5,
        "norm": 2.1,
        "tok/sec": 1500.5,
    },
    "[rank0]:[titan] 2025-01-01 10:00:00,123 - root - INFO - step:  5  loss: 12.2544  grad_norm:  4.0  mfu: 5.1%": {
        "step": 5,
        "rank": 0,
        "loss": 12.2544,
        "grad_norm": 4.0,
        "mfu": 0.051,
    },
    # Vision
    "05/08 18:56:16 - mmengine - INFO - Epoch(train) [1][ 50/938]  lr: 1.0000e-02  eta: 0:01:00  loss: 2.3": {
        "step": 50,
        "epoch": 1,
        "lr": 0.01,
        "loss": 2.3,
    },
    "05/08 18:56:16 - mmengine - INFO - Epoch(train)  [1][100/938]  lr: 1.0000e-02  loss: 2.3": {
        "step": 100,
        "epoch": 1,
        "lr": 0.01,
        "loss": 2.3,
    },
    "05/08 18:56:16 - mmengine - INFO - Epoch(val) [2][157/157]    accuracy/top1: 91.2  data_time: 0.01  time: 0.02": {
        "epoch": 2,
        "val_accuracy/top1": 91.2,
    },
    "2020-05-08 18:56:16,649 - mmseg - INFO - Iter [50/160000]\tlr: 1.0e-02, eta: 1 day, 4:33:09, loss: 0.489": {
        "step": 50,
        "lr": 0.01,
        "loss": 0.489,
    },
    "[01/01 10:00:00 d2.utils.events]:  eta: 0:10:00  iter: 19  total_loss: 2.3  loss_cls: 0.7  lr: 0.001": {
        "step": 19,
        "total_loss": 2.3,
        "loss_cls": 0.7,
        "lr": 0.001,
    },
    "INFO:root:Epoch[0] Batch [0-50]\tSpeed: 1200.5 samples/sec\taccuracy=0.81": {
        "step": 50,
        "epoch": 0,
        "Speed": 1200.5,
        "accuracy": 0.81,
    },
    "[2, 0.4915, 0.4084, 0.9281, '00:03']": {
        "epoch": 2,
        "train_loss": 0.4915,
        "valid_loss": 0.4084,
        "metric_1": 0.9281,
    },
    # Katib, logfmt, prose
    "{metricName: accuracy, metricValue: 0.9664};{metricName: loss, metricValue: 0.3}": {
        "step": 0,
        "accuracy": 0.9664,
        "loss": 0.3,
    },
    "accuracy=0.9664": {"step": 0, "accuracy": 0.9664},
    'ts=2024-01-01T00:00:00Z level=info msg="epoch done" epoch=1 loss=0.41 val_acc=0.9': {
        "epoch": 1,
        "loss": 0.41,
        "val_acc": 0.9,
    },
    "Epoch [3/10], Step [100/600], Loss: 0.2345": {"step": 100, "epoch": 3, "Loss": 0.2345},
    "train loss 1.03, val acc 0.9": {"step": 0, "train_loss": 1.03, "val_acc": 0.9},
    "loss is 0.3": {"step": 0, "loss": 0.3},
    "Train Loss: 0.5 | Val Loss: 0.6": {"step": 0, "Train_Loss": 0.5, "Val_Loss": 0.6},
    "train Loss: 0.6481 Acc: 0.6230": {"step": 0, "train_Loss": 0.6481, "train_Acc": 0.623},
    "Validation - loss: 0.3, accuracy: 91.5%": {"step": 0, "validation_loss": 0.3, "validation_accuracy": 0.915},
    "Training Results - Epoch: 1  Avg accuracy: 0.91 Avg loss: 0.3": {
        "epoch": 1,
        "training_Avg_accuracy": 0.91,
        "training_Avg_loss": 0.3,
    },
    "Epoch 3 | Accuracy: 9660/10000 (96.6%)": {"epoch": 3, "Accuracy": 0.966},
    "epoch 5 loss 0 acc 1": {"epoch": 5, "loss": 0, "acc": 1},
    "2020-01-01 10:00:00,000 epoch 1 - iter 10/100 - loss 2.5 - time (sec): 1.2 - samples/sec: 300.2 - lr: 0.1": {
        "step": 10,
        "epoch": 1,
        "loss": 2.5,
        "samples/sec": 300.2,
        "lr": 0.1,
    },
    "epoch 0  | loss: 0.7  | val_0_auc: 0.6 |  0:00:01s": {"epoch": 0, "loss": 0.7, "val_0_auc": 0.6},
    "step 10 loss=tensor(0.41, grad_fn=<NllLossBackward0>)": {"step": 10, "loss": 0.41},
    "loss=-inf": {"step": 0, "loss": float("-inf")},
    "Validation loss decreased (0.52 --> 0.41). Saving model ...": {},
    "Top-1 accuracy: 76.1%": {"step": 0, "Top-1_accuracy": 0.761},
    "ROC AUC: 0.91": {"step": 0, "ROC_AUC": 0.91},
    "MAE: 0.3, RMSE: 0.5, R2: 0.9": {"step": 0, "MAE": 0.3, "RMSE": 0.5, "R2": 0.9},
    "episode: 12 reward: -21.0": {"step": 12, "reward": -21.0},
    "=> Epoch 3, Val: loss 0.3, acc 0.9": {"epoch": 3, "val_loss": 0.3, "val_acc": 0.9},
    "samples-tf-mnist-demo-mtd44 main loss=0.5": {"step": 0, "loss": 0.5},
    "epoch-00001 train loss 0.5": {"step": 0, "train_loss": 0.5},
    "Epoch 3, loss: 0.5, examples: 512, jobs: 1": {"epoch": 3, "loss": 0.5},
    "Epoch 3: train=0.91 test=0.89": {"epoch": 3, "train": 0.91, "test": 0.89},
    "epoch  1 | train_loss 0.6931 | acc 51.2%": {"epoch": 1, "train_loss": 0.6931, "acc": 0.512},
    "Test Accuracy at step 10: 0.75": {"step": 10, "Test_Accuracy": 0.75},
    "accuracy at step 10: 0.75": {"step": 10, "accuracy": 0.75},
    "Train loss at step 30: 0.5": {"step": 30, "Train_loss": 0.5},
    "Accuracy at step 30: 50 %": {"step": 30, "Accuracy": 0.5},
    "precision @ 1 = 0.861": {"step": 0, "precision@1": 0.861},
    "step 3 loss: 0.5 batch_cost: 0.1 time_this_iter_s: 0.2 mem_used: 12.5": {"step": 3, "loss": 0.5},
    "Best val Acc: 0.954248": {"step": 0, "Best_val_Acc": 0.954248},
}


@pytest.mark.parametrize("line", LINES)
def test_a_line_gives_its_numbers(line: str) -> None:
    expected = LINES[line]
    assert rows(line + "\n") == ([expected] if expected else [])


# Logs whose lines belong together, such as a table below its header, each with its rows.
TABLES: dict[str, list[dict[str, Any]]] = {
    # spaCy
    "E    #       LOSS TOK2VEC  LOSS NER  ENTS_F  ENTS_P  ENTS_R  SCORE \n"
    "---  ------  ------------  --------  ------  ------  ------  ------\n"
    "  0       0          0.00     46.58    0.00    0.00    0.00    0.00\n"
    "122     600      17885.16   4397.02   92.00   91.50   92.50    0.92\n": [
        {
            "step": 0,
            "epoch": 0,
            "LOSS TOK2VEC": 0,
            "LOSS NER": 46.58,
            "ENTS_F": 0,
            "ENTS_P": 0,
            "ENTS_R": 0,
            "SCORE": 0,
        },
        {
            "step": 600,
            "epoch": 122,
            "LOSS TOK2VEC": 17885.16,
            "LOSS NER": 4397.02,
            "ENTS_F": 92,
            "ENTS_P": 91.5,
            "ENTS_R": 92.5,
            "SCORE": 0.92,
        },
    ],
    "E    #       LOSS TAGGER  TAG_ACC  SCORE \n"
    "---  ------  -----------  -------  ------\n"
    "  0   10000    694829.12    94.41    0.94                                        \n": [
        {"step": 10000, "epoch": 0, "LOSS TAGGER": 694829.12, "TAG_ACC": 94.41, "SCORE": 0.94},
    ],
    # Columns and boxes
    "step,loss,epoch\n10,0.5,1\n20,,1\n30,nan,2\n40,0.25,2\n": [
        {"step": 10, "epoch": 1, "loss": 0.5},
        {"step": 30, "epoch": 2},
        {"step": 40, "epoch": 2, "loss": 0.25},
    ],
    "epoch\tloss\tacc\n1\t0.5\t85.0%\n2\t0.25\n": [{"epoch": 1, "loss": 0.5, "acc": 0.85}],
    "step,duration\n10,2.5\n": [],
    "epoch,train_loss\n1,0.5\nSaved, as the best\n2,0.4\nnodes,pods\n5,7\n": [
        {"epoch": 1, "train_loss": 0.5},
        {"epoch": 2, "train_loss": 0.4},
    ],
    "| step | time |\n|---|---|\n| 10 | 2.5 |\n": [],
    "----------------------\n| weight decay | 0.1  |\n| max_steps    | 500  |\n----------------------\n": [],
    "--------------------\n| learner/ |       |\n| loss     | 0.5   |\n--------------------\n": [],
    "----------------------\n| iterations | 3     |\n| loss       | 0.5   |\n----------------------\n": [
        {"step": 3, "loss": 0.5}
    ],
    # Evaluations
    " Average Recall     (AR) @[ IoU=0.50:0.95 | area= small | maxDets=100 ] = -1.000\n": [],
    " Average Recall     (AR) @[ IoU=0.50:0.95 | area= large | maxDets= 10 ] = 0.512\n": [
        {"step": 0, "AR@10_large": 0.512}
    ],
    # Loggers
    ':::MLL 1571433686.379 eval_accuracy: {"value": 0.75, "metadata": {"epoch_num": 2, "lineno": 179}}\n': [
        {"epoch": 2, "eval_accuracy": 0.75}
    ],
    'DLLL {"type": "LOG", "step": "PARAMETER", "data": {"lr": 0.1}}\n': [],
    "DLL 2020-11-27 12:39:38.592000 - PARAMETER lr : 0.1 \n": [],
    'DLLL {"type": "LOG", "step": [], "data": {"val.loss": 1.5, "elapsed": 12.5}}\n': [{"step": 0, "val.loss": 1.5}],
}
NOTHING = [
    "TensorFlow version 2.16.1",
    "Using torch 2.3.0+cu121, accuracy checks on",
    "listening on 10.0.0.4:8080",
    "connecting to 10.240.0.11:10250",
    "master_addr=10.0.0.1 master_port=29500",
    "2026-11-24 06:00:00 starting",
    "Date: 2026-11-24",
    "accuracy of 3 decimal places",
    "loss of connection after 5 s",
    "loss of connection after 5.5 s",
    "Error 404",
    "error: 404",
    "Error: 2 files not found",
    "HTTP error 503 from server",
    "map size 640",
    "map: 640",
    "score board 3",
    "score 3",
    "3 packets transmitted, 3 received, 0% packet loss, time 2003ms",
    "packet loss: 5%",
    "exit code 137",
    "return code: 1",
    "returned 0",
    "precision: 16",
    "precision=16-mixed",
    "Using 16bit Automatic Mixed Precision (AMP)",
    "Downloading data: 100%|##########| 440M/440M [00:10<00:00, 42.0MB/s]",
    "model.safetensors:  45%|####5     | 198M/440M [00:04<00:05, 42.0MB/s]",
    "   ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 12.3/45.6 MB 1.2 MB/s eta 0:00:05",
    "Successfully installed numpy-1.26.4 torch-2.3.0",
    "Collecting torch==2.3.0",
    "Requirement already satisfied: numpy>=1.26 in /usr/lib (from torch) (1.26.4)",
    "Namespace(batch_size=64, epochs=14, lr=1.0, gamma=0.7, seed=1, loss_weight=0.5)",
    "AdamW(lr=0.001667, momentum=0.9) with parameter groups 57 weight(decay=0.0)",
    "{'lr': 0.001, 'batch_size': 32, 'epochs': 10}",
    '{"lr": 0.1, "batch_size": 64, "hidden": 128}',
    'request 5: {"status": 200, "epoch": 3, "size": 12.5}',
    '{"level":30,"time":1531171074631,"msg":"hello world","pid":657,"port":3000}',
    "learning_rate: 0.001",
    "lr=0.1",
    "Learning rate set to 0.029579",
    "  Num examples = 3,668",
    "  Num Epochs = 3",
    "  Total optimization steps = 345",
    "  Instantaneous batch size per device = 8",
    "Trainable params: 18",
    "Total params: 1,199,882 (4.58 MB)",
    "target accuracy 0.99",
    "target accuracy: 0.99",
    "loss_weight: 0.5",
    "val_split: 0.2",
    "eval_steps: 500",
    "test_size=0.2",
    "label_smoothing=0.1",
    "loss scale: 65536",
    "[deepspeed] OVERFLOW! Rank 0 Skipping step. Attempted loss scale: 4294967296, reducing to 2147483648",
    "rank=0 time (ms) | forward: 10.1 | backward: 20.2",
    "[13:26:11] src/tree/updater_prune.cc:74: tree pruning end, 1 roots, 12 extra nodes, 0 pruned nodes, max_depth=3",
    "[LightGBM] [Info] Start training from score -0.120144",
    "[LightGBM] [Info] [binary:BoostFromScore]: pavg=0.470000 -> initscore=-0.120144",
    "Speed: 0.2ms preprocess, 3.1ms inference, 0.0ms loss, 0.2ms postprocess per image",
    "YOLOv8n summary: 129 layers, 3,011,238 parameters, 3,011,222 gradients, 8.2 GFLOPs",
    "Epoch 00001: val_loss improved from inf to 0.07590, saving model to best.h5",
    "Epoch 5: early stopping",
    "NVIDIA-SMI 535.104.05   Driver Version: 535.104.05   CUDA Version: 12.2",
    "| N/A   34C    P0    25W /  70W |    105MiB / 15360MiB |      3%      Default |",
    "Mem: 16384 MB, swap: 0 MB",
    "loss: 3 points",
    "accuracy 10.0.0.1",
    "acc: 12:30:45",
    "loss: 1,234",
    "loss: 0x1f",
    "loss=1.2.3",
    "test 3 passed, 1 failed",
    "===== 12 passed, 1 error in 0.34 s =====",
    "Loading checkpoint shards: 100%|##########| 2/2 [00:01<00:00,  1.5it/s]",
    "cost: 0.09 USD",
    "val_loader: 157 batches",
    "train: 50000, val: 10000, test: 10000",
    "Retrying in 5.0 seconds: error 0.5",
    "Recall that pi is 3.14",
    "Error: expected 0.5 but got 0.3",
    "accuracy threshold: 0.95",
    "f1 score computed in 0.5 s",
    "Epochs: 10, batch size: 32",
    "Step 1: Downloading data",
    "max loss 0.5 exceeded",
    "train 0.5 val 0.2 split",
    "took 3.5 s",
    "ETA: 0:03:12",
    "gpu 0: 45 C, 0 %",
    "Loading checkpoint from epoch 3 (val_loss=0.41)",
    "=> loaded checkpoint 'model_best.pth.tar' (epoch 90, loss 0.5)",
    "[500] lr=0.001",
    "forward_time=0.134, consumed_samples=2560.0, max_mem_reserved: 42653",
]


@pytest.mark.parametrize("table", TABLES)
def test_a_table_has_its_rows(table: str) -> None:
    assert rows(table) == TABLES[table]
    assert rows(table.replace("\n", "\r\n")) == TABLES[table]


@pytest.mark.parametrize("line", NOTHING)
def test_other_lines_give_no_metrics(line: str) -> None:
    assert rows(line + "\n") == []
    assert rows("epoch=1 loss=0.5\n" + line + "\n")[1:] == []


@pytest.mark.parametrize("line", NOTHING)
def test_other_lines_do_not_change_the_next_row(line: str) -> None:
    """The next row is the same as it would be without the line."""
    before = "Epoch 7\n"
    after = "val_acc=0.5\n"
    if line.startswith("Epoch"):
        return
    assert rows(before + line + "\n" + after) == rows(before + after)


def test_every_format_of_the_package_is_asked() -> None:
    names = {module.name for module in pkgutil.iter_modules(formats.__path__)} - {"model"}
    modules = [importlib.import_module(f"{formats.__name__}.{name}") for name in sorted(names)]
    missing = [form.name for module in modules for form in module.FORMATS if form not in formats.FORMATS]
    assert missing == [], "add FORMATS of the module to the list in aksgpu/metrics/formats/__init__.py"


def test_every_format_reads_a_line_of_the_tests() -> None:
    logs = [*(DATA / "logs").glob("*.txt"), *(DATA / "recorded-logs").glob("*.log")]
    texts = [*LINES, *TABLES, *(path.read_bytes() for path in logs)]
    read = {name for text in texts for name in metrics.parse(text).attrs["formats"]}
    assert {form.name for form in formats.FORMATS} - read == set(), "add a line with its row to LINES or TABLES"
