"""Requests that arrive: drawn as asked, read as written, the same each time, wrong files told by line."""

import gzip

import numpy as np
import pytest

from moesim.errors import FileError
from moesim.scenario.serving.arrivals import STRETCH, Workload
from moesim.scenario.serving.schema import ArrivalsSpec


def gathered(spec, folder=None, seed=1, sources=7):
    stretches = list(Workload(ArrivalsSpec(**spec), folder, seed, sources)())
    names = ("arrival_s", "prompt", "output", "source")
    return [np.concatenate([getattr(stretch, name) for stretch in stretches]) for name in names]


@pytest.mark.parametrize("cv", [0.0, 0.5, 1.0, 3.0])
def test_gaps_have_the_mean_and_variation_asked_for(cv):
    arrival, *_ = gathered({"rate": "4 /s", "cv": cv, "requests": 200_000, "prompt": 1, "output": 1})
    gaps = np.diff(arrival)
    assert gaps.mean() == pytest.approx(0.25, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05, abs=1e-6)


def test_lengths_have_the_mean_and_variation_asked_for():
    spec = {"rate": "1 /s", "requests": 200_000, "prompt": {"mean": 800, "cv": 0.5}, "output": 64}
    _, prompt, output, source = gathered(spec)
    assert prompt.mean() == pytest.approx(800, rel=0.01)
    assert prompt.std() / prompt.mean() == pytest.approx(0.5, rel=0.02)
    assert (output == 64).all()
    assert np.unique(source).tolist() == list(range(7))


def test_stretches_go_on_where_the_last_one_ended_and_come_out_the_same_again():
    spec = {"rate": "1 /s", "requests": STRETCH + 10, "prompt": 5, "output": 5}
    arrival, *_ = gathered(spec)
    assert (np.diff(arrival) > 0).all()
    assert (gathered(spec)[0] == arrival).all()


def test_a_file_is_read_by_the_names_of_published_traces(tmp_path):
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 23:59:59.5000000,374,44\n"
        "2023-11-17 00:00:01.2500000,396,109\n"
    )
    with gzip.open(tmp_path / "requests.csv.gz", "wt") as file:
        file.write(text)
    arrival, prompt, output, _ = gathered({"file": "requests.csv.gz", "speed": 2.0}, tmp_path)
    assert arrival.tolist() == [0.0, 0.875]
    assert (prompt.tolist(), output.tolist()) == ([374, 396], [44, 109])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has no column arrival_s and no prompt_tokens and no output_tokens"),
        ("arrival_s,prompt_tokens\n", "has no column output_tokens"),
        ("arrival_s,prompt_tokens,output_tokens\n", "holds no request"),
        ("arrival_s,prompt_tokens,output_tokens\n0,1,1\n1,x,1\n", "requests.csv:3: is not a time"),
        ("arrival_s,prompt_tokens,output_tokens\n0,1,1\n1,1\n", "requests.csv:3: is not a time"),
        ("arrival_s,prompt_tokens,output_tokens\n5,1,1\n1,1,1\n", "requests.csv:3: comes before"),
        ("arrival_s,prompt_tokens,output_tokens\n0,0,1\n", "requests.csv:2: tokens must be"),
        ("arrival_s,prompt_tokens,output_tokens\nnan,1,1\n", "requests.csv:2: tokens must be"),
    ],
)
def test_a_wrong_file_is_told_by_line(tmp_path, text, told):
    (tmp_path / "requests.csv").write_text(text)
    with pytest.raises(FileError, match=told):
        gathered({"file": "requests.csv"}, tmp_path)
    with pytest.raises(FileError, match=r"can't be read"):
        gathered({"file": "absent.csv"}, tmp_path)


def test_published_requests_are_read_in_full(shared_data):
    arrival, prompt, output, _ = gathered({"file": "azure_llm_2023_code.csv.gz"}, shared_data / "requests")
    assert (len(arrival), int(prompt[0]), int(output[0])) == (8819, 4808, 10)
    gaps = np.diff(arrival)
    assert gaps.std() / gaps.mean() == pytest.approx(13, abs=1)  # as its README says
