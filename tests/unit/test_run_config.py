"""One YAML file describes a run: what it may say, what it means by default, and how each mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hero_sdk.rows import RowGeometry
from hero_train.errors import ConfigError
from hero_train.losses import RetrievalLossConfig
from hero_train.run_config import RetrievalRunConfig, load_config

LEAST = """
task: retrieval
output: runs/one
frame_encoder: encoder
data: {videos: videos, train: train.jsonl, features: cache}
"""


def load(folder: Path, text: str = "", *overrides: str) -> RetrievalRunConfig:
    """The least configuration with more lines below it."""
    path = folder / "run.yaml"
    path.write_text(LEAST + text, encoding="utf-8")
    config = load_config(path, overrides)
    assert isinstance(config, RetrievalRunConfig)
    return config


def test_the_least_configuration_is_the_papers_on_tvr(tmp_path: Path) -> None:
    config = load(tmp_path)
    settings = config.optimisation
    assert (settings.steps, settings.warmup, settings.learning_rate) == (5000, 500, 1e-4)
    assert (settings.betas, settings.epsilon, settings.weight_decay) == ((0.9, 0.98), 1e-6, 0.01)
    assert settings.max_gradient_norm == 1.0
    assert (config.loss.video_weight, config.loss.query_weight, config.loss.span_weight) == (8, 8, 0.01)
    assert (config.loss.ranking, config.loss.margin) == ("hinge", 0.1)
    assert config.data.subtitles is config.data.validation is config.data.test is None


def test_relative_paths_count_from_the_file(tmp_path: Path) -> None:
    text = LEAST.replace("features: cache", f"features: {tmp_path / 'elsewhere'}, subtitles: ../subtitles")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "run.yaml").write_text(text, encoding="utf-8")
    config = load_config(tmp_path / "configs" / "run.yaml")
    base = tmp_path / "configs"
    assert config.output == base / "runs" / "one"
    assert config.frame_encoder == base / "encoder"
    assert (config.data.videos, config.data.train) == (base / "videos", base / "train.jsonl")
    assert config.data.features == tmp_path / "elsewhere"
    assert config.data.subtitles is not None
    assert config.data.subtitles.resolve() == tmp_path / "subtitles"


def test_a_checkpoint_and_a_tokenizer_beside_the_file_are_found(tmp_path: Path) -> None:
    """A hub id is no path and stays as it is."""
    for name in ("start", "words"):
        (tmp_path / name).mkdir()
    config = load(tmp_path, "initial: start\ntokenizer: {source: ./words}")
    assert config.initial is not None
    assert config.tokenizer.source is not None
    assert Path(config.initial).resolve() == tmp_path / "start"
    assert Path(config.tokenizer.source).resolve() == tmp_path / "words"
    config = load(tmp_path, "initial: someone/hero-tv\ntokenizer: {source: roberta-base}")
    assert (config.initial, config.tokenizer.source) == ("someone/hero-tv", "roberta-base")


@pytest.mark.parametrize("rounding", ["outward", "middle"])
def test_what_is_no_path_is_left_as_it_is(tmp_path: Path, rounding: str) -> None:
    assert load(tmp_path, "", f"data.rounding={rounding}").data.rounding == rounding


def test_sections_are_read(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
model: {hidden_size: 128, num_heads: 4}
sampling: {videos: 8, both: 2, picture: 1, text: 1}
loss: {ranking: nce, clip_weight: 1, hard_negatives: true}
rows: {slots: 64, frames: 32}
optimisation: {steps: 10, warmup: 0, betas: [0.8, 0.9], hard_negatives_after: 5}
tokenizer: {vocabulary: 500}
precision: bf16
threads: 3
""",
    )
    assert config.model == {"hidden_size": 128, "num_heads": 4}
    assert config.loss == RetrievalLossConfig(ranking="nce", clip_weight=1.0, hard_negatives=True)
    assert config.rows == RowGeometry(slots=64, frames=32)
    assert (config.sampling.videos, config.sampling.both, config.sampling.text) == (8, 2.0, 1.0)
    assert config.optimisation.betas == (0.8, 0.9)
    assert (config.precision, config.threads, config.tokenizer.vocabulary) == ("bf16", 3, 500)


def test_overrides_are_yaml_and_the_last_one_counts(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "optimisation: {steps: 10}",
        "optimisation.steps=20",
        "optimisation.learning_rate=3.0e-5",
        "optimisation.betas=[0.5, 0.6]",
        "optimisation.hard_negatives_after=null",
        "model.hidden_size=64",
        "seed=1",
        "seed=2",
        "initial=name/with=sign",
    )
    settings = config.optimisation
    assert (settings.steps, settings.learning_rate, settings.betas) == (20, 3e-5, (0.5, 0.6))
    assert settings.hard_negatives_after is None
    assert config.model == {"hidden_size": 64}
    assert (config.seed, config.initial) == (2, "name/with=sign")


def test_what_a_run_records_describes_the_same_run(tmp_path: Path) -> None:
    config = load(tmp_path, "model: {hidden_size: 64}\nloss: {ranking: lse}", "data.validation=val.jsonl")
    record = tmp_path / "elsewhere" / "config.yaml"
    record.parent.mkdir()
    record.write_text(config.dump(), encoding="utf-8")
    assert load_config(record) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sampling: {vidoes: 3}", r"sampling\.vidoes: Unexpected keyword"),
        ("loss: {margn: 3}", r"loss\.margn: Unexpected keyword"),
        ("rows: {slot: 3}", r"rows\.slot: Unexpected keyword"),
        ("optimizer: {}", r"optimizer: Extra inputs are not permitted"),
        ("optimisation: {step: 3}", r"optimisation\.step: Extra inputs"),
        ("loss: {ranking: triplet}", r"loss\.ranking: Input should be 'hinge', 'lse' or 'nce'"),
        ("rows: {slots: 0}", r"RowGeometry\.slots is 0"),
        ("rows: {slots: 8, frames: 9}", "9 frames in a row of 8 slots"),
        ("optimisation: {steps: 0}", r"optimisation\.steps: Input should be greater than or equal to 1"),
        ("optimisation: {learning_rate: fast}", r"optimisation\.learning_rate: .*valid number"),
        ("precision: int4", r"precision: Input should be 'auto', 'fp32', 'bf16' or 'fp16'"),
        ("tokenizer: {vocabulary: 100}", r"tokenizer\.vocabulary: .* 300"),
        ("model: {vocab_size: 100, feature_dim: 3}", r"model sets \['feature_dim', 'vocab_size'\].*leave them out"),
        ("threads: 0", "threads: .*greater than or equal to 1"),
        ("1: 2", "1: Keys should be strings"),
        ("seed: x\nevaluate_every: -1", "seed: .*; evaluate_every: "),
    ],
)
def test_an_entry_that_does_not_fit_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'run.yaml'} does not describe a run: ")


@pytest.mark.parametrize(
    "text",
    [
        "sampling: {videos: 0}",
        "sampling: {queries_per_video: 0}",
        "sampling: {both: -1, picture: 2}",
        "sampling: {both: 0}",
        "sampling: {spoken_per_video: -1}",
        "sampling: {span_dropout: 1.5}",
    ],
)
def test_a_sampling_that_can_draw_no_batch_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="sampling"):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("task", "entry", "message"),
    [
        ("retrieval", "span_weight=0.4", "span_weight: Extra inputs"),
        ("retrieval", "smoothing=0.1", "smoothing: Extra inputs"),
        ("retrieval", "sampling.items=4", r"sampling\.items: Unexpected keyword"),
        ("retrieval", "data.ids=ids.json", r"data\.ids: Extra inputs"),
        ("retrieval", "best_metric=accuracy", "best_metric is 'accuracy'.*expected one of SVMR/AveR"),
        ("questions", "loss.margin=0.1", "loss: Extra inputs"),
        ("questions", "sampling.videos=4", r"sampling\.videos: Unexpected keyword"),
        ("questions", "best_metric=CIDEr", "best_metric is 'CIDEr'.*expected one of accuracy"),
        ("statements", "span_weight=0.4", "span_weight: Extra inputs"),
        ("statements", "sampling.answers=3", r"sampling\.answers: Unexpected keyword"),
        ("captions", "sampling.augmentation.feature_noise=0.1", r"sampling\.augmentation: Unexpected keyword"),
        # It is measured at the end only.
        ("captions", "best_metric=METEOR", "best_metric is 'METEOR'.*expected one of BLEU-1"),
        ("pretraining", "data.validation=val.jsonl", r"data\.validation: Extra inputs"),
        ("pretraining", "patience=3", "patience: Extra inputs"),
    ],
)
def test_an_entry_of_another_task_is_named(tmp_path: Path, task: str, entry: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    text = LEAST.replace("task: retrieval", f"task: {task}")
    path.write_text(text.replace("train: train.jsonl, ", "") if task == "pretraining" else text, encoding="utf-8")
    assert load_config(path).task == task
    with pytest.raises(ConfigError, match=message):
        load_config(path, [entry])


def test_a_metric_that_no_evaluation_has_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="best_metric"):
        load(tmp_path, "best_metric: VCMR/R@1/IoU=0.71")


@pytest.mark.parametrize("entry", ["output", "data"])
def test_an_entry_that_is_missing_is_named(tmp_path: Path, entry: str) -> None:
    content = yaml.safe_load(LEAST)
    del content[entry]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"{entry}: Field required"):
        load_config(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimisation.steps", "has no '='; expected section.entry=value"),
        ("seed.deep=1", "goes through seed, which is no section"),
        ("optimisation.step=1", r"optimisation\.step: Extra inputs"),
        ("optimisation.steps=many", r"optimisation\.steps: .*valid integer"),
        ("=1", "does not describe a run"),
        ("optimisation.betas=[0.9", "is not YAML"),
    ],
)
def test_an_override_that_does_not_fit_is_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, "seed: 3", override)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"data: {videos: [", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"", "holds NoneType; expected the sections of a run"),
        (b"- output", "holds list; expected the sections of a run"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "run.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "run.yaml")


def test_features_come_from_videos_or_were_prepared(tmp_path: Path) -> None:
    """Videos need a frame encoder; without either, the features are those of a prepared folder."""
    with pytest.raises(ConfigError, match=r"data\.videos is set and frame_encoder is not"):
        load(tmp_path, "", "frame_encoder=null")
    with pytest.raises(ConfigError, match=r"frame_encoder is set and data\.videos is not"):
        load(tmp_path, "", "data.videos=null")
    prepared = load(tmp_path, "", "frame_encoder=null", "data.videos=null")
    assert prepared.frame_encoder is prepared.data.videos is None


@pytest.mark.parametrize("task", ["null", "vcmr", "[retrieval]"])
def test_a_task_that_no_recipe_has_is_refused(tmp_path: Path, task: str) -> None:
    with pytest.raises(ConfigError, match="expected one of pretraining, retrieval, questions, statements, captions"):
        load(tmp_path, "", f"task={task}")


def test_patience_counts_evaluations(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"patience counts evaluations; set data\.validation and evaluate_every"):
        load(tmp_path, "", "patience=2", "evaluate_every=10")
    ready = load(tmp_path, "", "patience=2", "evaluate_every=10", "data.validation=val.jsonl")
    assert ready.patience == 2


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no configuration file .*run\.yaml"):
        load_config(tmp_path / "run.yaml")
