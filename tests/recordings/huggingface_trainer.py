"""Hugging Face: the Trainer with a tiny BERT of random weights, evaluation each epoch, and ``log_metrics``."""

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments
from truth import Truth

truth = Truth("Hugging Face Trainer", "transformers", "torch", tolerance=5e-4)
torch.manual_seed(0)
config = BertConfig(
    vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=2
)
model = BertForSequenceClassification(config)
generator = torch.Generator().manual_seed(0)
tokens = torch.randint(0, 50, (256, 8), generator=generator)
data = [{"input_ids": row, "labels": int(row[0] > 25)} for row in tokens]


class Record(TrainerCallback):
    """Records what the trainer logs."""

    def on_log(self, args, state, control, logs=None, **others):
        for name in ("loss", "eval_loss", "eval_accuracy", "grad_norm", "learning_rate", "train_loss"):
            if name in logs:
                truth.add(name, logs[name], epoch=round(state.epoch, 4))


def measures(prediction):
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


trainer = Trainer(
    model,
    TrainingArguments(
        "out",
        num_train_epochs=3,
        per_device_train_batch_size=16,
        learning_rate=5e-3,
        logging_steps=4,
        eval_strategy="epoch",
        save_strategy="no",
        report_to=[],
        use_cpu=True,
    ),
    train_dataset=data,
    eval_dataset=data[:64],
    compute_metrics=measures,
    callbacks=[Record()],
)
trainer.train()
trainer.log_metrics("eval", trainer.evaluate())
truth.save()
