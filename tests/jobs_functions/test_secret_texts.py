from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from aksgpu.jobs.call_parameters import parameters, script_parameters
from aksgpu.jobs.run_record import read_facts
from aksgpu.jobs.secret_texts import SECRET_NAME, hide_in_text, hide_secrets

SECRET = "s3cr3tvalue0123456789"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--token", "abc", "--lr", "3"], ["--token", "***", "--lr", "3"]),
        (["--hf-token=abc", "--max-tokens", "5"], ["--hf-token=***", "--max-tokens", "5"]),
        (["--use-auth-token", "--lr", "1"], ["--use-auth-token", "--lr", "1"]),
        (["--key"], ["--key"]),
        (["sh", "-c", "run --token abc; echo done"], ["sh", "-c", "run --token ***; echo done"]),
        (["sh", "-c", "--verbose --token abc"], ["sh", "-c", "--verbose --token ***"]),
        (["sh", "-c", "A=1 HF_TOKEN='a b' python t.py"], ["sh", "-c", "A=1 HF_TOKEN=*** python t.py"]),
        (["sh", "-c", 'python t.py --api-key "a b" --lr 3'], ["sh", "-c", "python t.py --api-key *** --lr 3"]),
        (["python", "-c", "print(key==3)"], ["python", "-c", "print(key==3)"]),
    ],
)
def test_values_that_are_named_like_a_secret_are_hidden(words: list[str], shown: list[str]) -> None:
    assert hide_secrets(words) == shown


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "hftoken", "api_key", "apiKey", "OPENAI_API_KEY", "auth", "AUTHORIZATION", "password", "PASSWD"],
)
def test_names_of_secrets(name: str) -> None:
    assert SECRET_NAME.search(name)


@pytest.mark.parametrize("name", ["max_tokens", "tokenizer", "author", "monkey", "keyboard", "lr", "passes"])
def test_names_of_hyperparameters(name: str) -> None:
    assert not SECRET_NAME.search(name)


@pytest.mark.parametrize(
    "words",
    [
        ["sh", "-c", f'bash -c "python t.py --token {SECRET}"'],
        ["sh", "-c", f"run --env TOKEN={SECRET}"],
        ["docker", "run", f"--env=HF_TOKEN={SECRET}"],
        [f"--password=a;{SECRET}"],
        [f"--password=a b {SECRET}"],
        ["env", f"API_KEY=a&{SECRET}", "python"],
        ["sh", "-c", f'TOKEN=a"b {SECRET}" python t.py'],
        ["sh", "-c", f'TOKEN="a\\"b {SECRET}" python t.py'],
        ["sh", "-c", f"TOKEN=a\\ {SECRET} python t.py"],
        ["sh", "-c", f'TOKEN="a {SECRET}'],
        ["sh", "-c", f"TOKEN+={SECRET}; : ${{TOKEN:-{SECRET}}} ${{TOKEN:={SECRET}}}"],
        ["sh", "-c", f'bash -c "t --token \\"a {SECRET}\\" x"'],
        ["curl", "-H", f"Authorization: Basic {SECRET}", "https://a.example"],
        ["curl", f"--header=Authorization: Bearer {SECRET}"],
        ["sh", "-c", f'curl -H "Authorization: Bearer {SECRET}" https://a.example'],
        ["sh", "-c", f"curl -H X-Auth: -H 'x-api-key:{SECRET}' https://a.example"],
        ["curl", f"https://user:{SECRET}@a.example/x"],
        ["sh", "-c", f"git clone https://{SECRET}@a.example/x"],
        ["azcopy", f"https://a.blob.core.windows.net/c?sv=2024&sig={SECRET}&se=x"],
        [f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={SECRET}==;EndpointSuffix=b"],
        ["--config", f'{{"lr": 1, "hf_token": "{SECRET}"}}'],
        ["sh", "-c", f't.py --config "{{\\"hf_token\\": \\"a {SECRET}\\"}}"'],
        ["python", "-c", f"token = '{SECRET}'; run()"],
        ["python", "-c", f"os.environ['HF_TOKEN'] = '{SECRET}'"],
        ["python", "-c", f"os.environ.setdefault('HF_TOKEN', '{SECRET}')"],
        ["python", "-c", f"subprocess.run(['t', '--token', '{SECRET}'])"],
        ["sh", "-c", f"cat > c.yaml <<EOF\nlr: 3\napi_key: {SECRET}\nEOF"],
        ["sh", "-c", f"DB_PASS={SECRET} MYSQL_PWD={SECRET} t"],
        ["huggingface-cli", "login", "hf_" + SECRET],
        ["sh", "-c", f"echo '-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----' > id"],
    ],
)
def test_secrets_in_other_forms_are_hidden(words: list[str]) -> None:
    shown = hide_secrets(words)
    assert SECRET not in " ".join(shown)
    assert len(shown) == len(words)
    assert "***" in " ".join(shown)


@pytest.mark.parametrize(
    "words",
    [
        ["sh", "-c", "pip install -r requirements.txt && python t.py --lr 3 --max-tokens=5 2>&1 | tee log"],
        ["python", "-c", "d = {'lr': 3}; print(d['lr'] == 3, 'a: b')"],
        ["python", "-c", "f = lambda key: key != 3"],
        ["torchrun", "--rdzv-endpoint=10.0.0.1:29500", "t.py", "model.lr=3", "+trainer.gpus=1"],
        ["curl", "-H", "Accept: text/plain", "https://a.example:8080/x?y=1&z=a@b"],
        ["sh", "-c", "export A='b c'; cd \"$PWD\" && ./run"],
        ["sh", "-c", "PWD=/work OLDPWD=/ SIGMA=3 COMPASS=1 ./run --monkey 3"],
    ],
)
def test_command_lines_without_secrets_are_unchanged(words: list[str]) -> None:
    assert hide_secrets(words) == words


def test_what_follows_a_secret_is_shown() -> None:
    assert hide_in_text('{"token": "abc", "lr": 1}') == '{"token": ***, "lr": 1}'
    assert hide_in_text("curl https://a:b@c/d?sig=e&se=f") == "curl https://***@c/d?sig=***&se=f"
    assert hide_in_text("curl -H 'Authorization: Bearer abc' x") == "curl -H 'Authorization: ***' x"


def test_secrets_are_not_among_the_saved_parameters() -> None:
    def train(rate: float, url: str, name: str) -> None: ...

    assert json.loads(parameters(train, (0.1, f"https://a:{SECRET}@b", "x"), {})) == {"rate": 0.1, "name": "x"}
    words = ["-token", SECRET, "--url", f"https://a:{SECRET}@b", "--lr", "3", "data"]
    assert json.loads(script_parameters(words)) == {"--lr": "3", "arguments": "data"}


def test_the_value_of_a_commands_last_option_is_the_first_argument() -> None:
    container = {
        "image": "x",
        "command": ["python", "t.py", "--token"],
        "args": [SECRET, "--lr", "3"],
        "env": [{"name": "DATABASE_URL", "value": f"postgres://a:{SECRET}@b/c"}, {"name": "MODE", "value": "fast"}],
    }
    metadata = {"name": "a", "namespace": "default", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    job = {"metadata": metadata, "spec": {"template": {"spec": {"containers": [container]}}}, "status": {}}
    facts = read_facts(SimpleNamespace(name="c"), job, [])
    assert facts["command"] == ["python", "t.py", "--token"]
    assert facts["args"] == ["***", "--lr", "3"]
    assert facts["env"] == {"DATABASE_URL": "postgres://***@b/c", "MODE": "fast"}
