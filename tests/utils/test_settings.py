"""From YAML and command line to settings: what wins over what, and messages that help."""

from pathlib import Path

import pytest
import yaml

from evaluation.settings import EvalSettings
from tests.tiny import ROOT
from training.settings import TrainSettings
from utils.errors import UserError
from utils.settings import load_settings, load_settings_and_recipe
from utils.yaml_files import read_yaml

FILE = """
dataset_file: datasets.synthetic
optim: {learning_rate: 1e-3, lr_params: {power: 2}}
recipes:
    datasets.synthetic: {batch_size: 20, optim: {lr_params: {min_lr: 1e-5}}}
    datasets.lidc: &lidc {batch_size: 30, train_for: 7 epochs, network_params: {channel_mult: [1, 2]}}
    default: {<<: *lidc, batch_size: 10}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "params.yml"
    path.write_text(FILE, encoding="utf-8")
    return path


def load(path: Path, *overrides: str) -> TrainSettings:
    return load_settings(TrainSettings, [str(path), *overrides], default_file="params.yml")


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        load(path, *overrides)
    return str(error.value)


def test_recipe_of_the_dataset_is_added_to_the_common_settings(file: Path) -> None:
    settings = load(file)
    assert settings.batch_size == 20
    assert settings.train_for == TrainSettings().train_for
    assert settings.optim.learning_rate == 1e-3
    assert (settings.optim.lr_params.power, settings.optim.lr_params.min_lr) == (2, 1e-5)


def test_overriding_the_dataset_switches_the_recipe(file: Path) -> None:
    settings = load(file, "dataset_file=datasets.lidc")
    assert (settings.dataset_file, settings.batch_size, settings.train_for) == ("datasets.lidc", 30, "7 epochs")
    assert settings.optim.lr_params.min_lr == TrainSettings().optim.lr_params.min_lr


def test_another_dataset_does_not_get_the_parameters_of_the_files_dataset(tmp_path: Path) -> None:
    file = tmp_path / "mine.yml"
    file.write_text("dataset_file: mine.lesions\ndataset_params: {path: lesions}\n", encoding="utf-8")
    assert load(file).dataset_params == {"path": "lesions"}
    assert load(file, "dataset_file=mine.lesions", "dataset_params.size=3").dataset_params == {
        "path": "lesions",
        "size": 3,
    }
    assert load(file, "dataset_file=datasets.lidc", "dataset_params.fold=3").dataset_params == {"fold": 3}


def test_dataset_without_a_recipe_takes_the_default_recipe(file: Path) -> None:
    settings = load(file, "dataset_file=mine.lesions")
    assert (settings.batch_size, settings.train_for) == (10, "7 epochs")


def test_recipe_that_was_used_is_known(file: Path) -> None:
    def source(*overrides: str) -> str:
        return load_settings_and_recipe(TrainSettings, [str(file), *overrides], default_file="")[1]

    assert source() == f"{file}, recipe datasets.synthetic"
    assert source("dataset_file=mine.lesions") == f"{file}, recipe default"
    file.write_text("batch_size: 3")
    assert source() == str(file)


@pytest.mark.parametrize(
    ("common", "recipe", "key"),
    [
        ("batch_size: 1", "{batch_size: 1}", "batch_size"),
        ("optim: {lr_params: {power: 1}}", "{optim: {lr_params: {power: 2}}}", "optim.lr_params.power"),
        ("feature_cond_encoder: null", "{feature_cond_encoder: {model: dino_vits8}}", "feature_cond_encoder"),
    ],
)
def test_key_at_the_top_level_and_in_a_recipe_is_refused(file: Path, common: str, recipe: str, key: str) -> None:
    file.write_text(f"{common}\nrecipes: {{datasets.lidc: {recipe}}}", encoding="utf-8")
    assert f"`{key}` is set at the top level and in the recipe datasets.lidc" in refusal(file)


def test_another_network_does_not_get_the_parameters_of_the_recipes_network(file: Path) -> None:
    lidc = "dataset_file=datasets.lidc"
    assert load(file, lidc, "network=my.net").network_params == {}
    assert load(file, lidc, "network_params.width=3", "network=my.net").network_params == {"width": 3}
    assert load(file, lidc, "network=models.unet").network_params == {"channel_mult": [1, 2]}


def test_overrides_win_over_recipes_in_any_order(file: Path) -> None:
    assert load(file, "batch_size=5").batch_size == 5
    assert load(file, "batch_size=5", "dataset_file=datasets.lidc").batch_size == 5
    assert load(file, "optim.lr_params.min_lr=0").optim.lr_params.min_lr == 0


def test_last_of_two_overrides_wins_and_siblings_stay(file: Path) -> None:
    settings = load(file, "optim.learning_rate=1", "optim.learning_rate=0.5")
    assert settings.optim.learning_rate == 0.5
    assert settings.optim.lr_params.power == 2


def test_overrides_may_precede_the_file(file: Path) -> None:
    settings = load_settings(TrainSettings, ["batch_size=3", str(file)], default_file="nowhere.yml")
    assert settings.batch_size == 3


def test_path_with_an_equals_sign_is_a_settings_file(file: Path, tmp_path: Path) -> None:
    for name in ("lr=3", "seed=1/params.yml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("batch_size: 9")
        assert load(path).batch_size == 9
    assert "lr=4.yml cannot be read" in refusal(tmp_path / "lr=4.yml")
    assert load(file, "output_path=runs/a.yml").output_path == "runs/a.yml"


def test_default_file_is_read_where_none_is_named(file: Path) -> None:
    assert load_settings(TrainSettings, [], default_file=str(file)).batch_size == 20
    assert load_settings(TrainSettings, ["seed=4"], default_file=str(file)).seed == 4


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "+1e-4", "1.e-4", "1.0e-4", "0.0001"])
def test_numbers_with_exponents_are_numbers(file: Path, text: str) -> None:
    assert load(file, f"optim.learning_rate={text}").optim.learning_rate == 1e-4
    file.write_text(f"optim: {{learning_rate: {text}}}\n")
    assert load(file).optim.learning_rate == 1e-4


def test_text_that_is_not_a_number_stays_text(file: Path) -> None:
    assert load(file, "output_path=1e-4x").output_path == "1e-4x"
    assert load(file, "load_from=a=b").load_from == "a=b"
    assert load(file, "load_from=").load_from is None


@pytest.mark.parametrize(
    ("override", "key", "nearest"),
    [
        ("batchsize=4", "batchsize", "batch_size"),
        ("optim.learning_rte=1", "optim.learning_rte", "optim.learning_rate"),
        ("optim.lr_params.minlr=0", "optim.lr_params.minlr", "optim.lr_params.min_lr"),
        ("learning_rate=1", "learning_rate", "optim.learning_rate"),
        ("feature_cond_encoder.modl=x", "feature_cond_encoder.modl", "feature_cond_encoder.model"),
        ("samplng.steps=3", "samplng", "sampling"),
    ],
)
def test_unknown_key_is_refused_with_the_nearest_name(file: Path, override: str, key: str, nearest: str) -> None:
    assert f"unknown key `{key}`; did you mean `{nearest}`?" in refusal(file, override)


def test_unknown_key_without_a_near_name_is_refused_with_all_names(file: Path) -> None:
    message = refusal(file, "xyzzy=1")
    assert all(name in message for name in ("unknown key `xyzzy`", "batch_size", "optim.lr_params.min_lr"))


def test_unknown_key_of_the_recipe_is_refused(file: Path) -> None:
    file.write_text("recipes: {datasets.synthetic: {batchsize: 3}}\ndataset_file: datasets.synthetic\n")
    assert "unknown key `batchsize`" in refusal(file)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("batch_size=-1", "`batch_size` should be greater than or equal to 1, but it is -1"),
        ("batch_size=many", "`batch_size` should be a valid integer, but it is 'many'"),
        ("batch_size=", "`batch_size` should be a valid integer, but it is nothing"),
        ("optim.learning_rate=fast", "`optim.learning_rate` should be a valid number, but it is 'fast'"),
        ("sampling.sampler=euler", "`sampling.sampler`: unknown name 'euler'; choose from: ancestral, coherent, ddim"),
        ("dataset_pipeline_train=[flip, 1]", "`dataset_pipeline_train.1` should be a valid string, but it is 1"),
        ("optim.lr_params.min_lr=1", "`optim`: lr_params.min_lr is above learning_rate"),
        ("optim=5", "`optim` should be a valid dictionary"),
        ("dataset_file=3", "`dataset_file` should be a valid string, but it is 3"),
    ],
)
def test_value_is_refused_with_its_key_and_what_was_expected(file: Path, override: str, said: str) -> None:
    message = refusal(file, override)
    assert said in message
    assert str(file) in message


def test_all_mistakes_are_named_at_once(file: Path) -> None:
    message = refusal(file, "train_for=0 epochs", "batchsize=1", "optim.learning_rate=0")
    assert all(key in message for key in ("`train_for`", "`batchsize`", "`optim.learning_rate`"))


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("=3", "expected key=value"),
        ("optim.=3", "expected key=value"),
        (".seed=3", "expected key=value"),
        ("num_samples=[1", "override 'num_samples=[1': the value is not valid YAML"),
        ("seed=!!int ''", "override \"seed=!!int ''\": the value is not valid YAML"),
        ("device=caf\udce9", "the value is not valid YAML"),
        ('device="\\0"', "the value: it contains the unusable character '\\x00'"),
        ("a." * 100 + "b=1", "levels"),
        ("a\0=1", "`a\\x00` contains the unusable character"),
        ("dataset_file=[a, b]", "dataset_file"),
        ("other.yml", "expected one settings file"),
    ],
)
def test_argument_that_cannot_be_read_is_refused(file: Path, argument: str, said: str) -> None:
    assert said in refusal(file, argument)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    assert "nowhere.yml cannot be read" in refusal(tmp_path / "nowhere.yml")
    assert f"{tmp_path} cannot be read" in refusal(tmp_path)
    assert "x\0.yml cannot be read: embedded null byte" in refusal(tmp_path / "x\0.yml")


def test_shipped_training_settings_are_valid_for_every_recipe() -> None:
    path = ROOT / "params.yml"
    names = list(read_yaml(path)["recipes"])
    assert names == ["datasets.synthetic", "datasets.lidc", "datasets.lidc_crops", "datasets.cityscapes", "default"]
    for name in names:
        assert load(path, f"dataset_file={name}").dataset_file == name
    assert load(path).dataset_file == "datasets.synthetic"
    own, lidc = (load(path, f"dataset_file={name}") for name in ("my.data", "datasets.lidc"))
    assert own.network_params == lidc.network_params != {}


def test_shipped_evaluation_settings_are_the_defaults_of_the_code() -> None:
    assert load_settings(EvalSettings, [str(ROOT / "params_eval.yml")], default_file="") == EvalSettings()


@pytest.mark.parametrize(("name", "schema"), [("params.yml", TrainSettings), ("params_eval.yml", EvalSettings)])
def test_resolved_settings_can_be_read_back(
    name: str, schema: type[TrainSettings] | type[EvalSettings], tmp_path: Path
) -> None:
    settings = load_settings(schema, [str(ROOT / name)], default_file="")
    resolved = tmp_path / "resolved.yml"
    resolved.write_text(yaml.safe_dump(settings.model_dump()), encoding="utf-8")
    assert load_settings(schema, [str(resolved)], default_file="") == settings


def test_of_many_problems_only_the_first_are_explained(file: Path) -> None:
    message = refusal(file, *(f"dataset_params_{number}=1" for number in range(1000)))
    assert message.count("unknown key") == 10
    assert message.endswith("and 990 more")
