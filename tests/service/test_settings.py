from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import MIB, Settings, describe, unknown_variables


def test_defaults_listen_on_the_own_machine_only() -> None:
    settings = Settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.max_bytes == 20 * MIB
    assert settings.models.name == "models"


def test_variables_set_what_their_names_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTN_PORT", "9000")
    monkeypatch.setenv("DTN_LOG_LEVEL", "WARNING")
    monkeypatch.setenv("DTN_API_KEYS", "one, two")
    monkeypatch.setenv("DTN_CORS_ORIGINS", "https://a.org, http://127.0.0.1:3000")
    monkeypatch.setenv("DTN_LOG_FORMAT", "JSON")
    settings = Settings()
    assert settings.cors_origins == ("https://a.org", "http://127.0.0.1:3000")
    assert settings.log_format == "json"
    assert (settings.port, settings.log_level) == (9000, "warning")
    assert [key.get_secret_value() for key in settings.api_keys] == ["one", "two"]


def test_what_is_given_goes_before_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTN_PORT", "9000")
    assert Settings(port=9001).port == 9001


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"),
        ("PORT", "http"),
        ("DEVICE", "tpu"),
        ("WORKERS", "0"),
        ("MAX_PIXELS", "99999999999"),
        ("DEADLINE_S", "0"),
        ("DEADLINE_S", "nan"),
        ("API_KEYS", "one,,two"),
        ("API_KEYS", " "),
        ("RATE_LIMIT", "-1"),
        ("RATE_LIMIT", "inf"),
        ("RATE_BURST", "many"),
        ("CORS_ORIGINS", "example.org"),
        ("CORS_ORIGINS", "https://example.org/"),
        ("CORS_ORIGINS", "https://Example.org"),
        ("CORS_ORIGINS", "https://a.org,,https://b.org"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_values_out_of_bounds_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"DTN_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


def test_keys_show_up_neither_in_the_settings_nor_in_their_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DTN_API_KEYS", "hush")
    assert "hush" not in repr(Settings())
    monkeypatch.setenv("DTN_API_KEYS", "hush,")
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert "hush" not in str(refused.value)


def test_the_password_of_the_database_shows_up_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTN_DATABASE_URL", "postgresql://user:hush@host/db")
    settings = Settings()
    assert "hush" not in repr(settings)
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://user:hush@host/db"
    variable, meaning = describe("database_url", Settings.model_fields["database_url"])
    assert variable == "DTN_DATABASE_URL URL"
    assert meaning.endswith("[default: none]")


def test_every_setting_says_what_it_means() -> None:
    for name, field in Settings.model_fields.items():
        variable, meaning = describe(name, field)
        assert variable.startswith(f"DTN_{name.upper()} ")
        assert field.description
        assert "[default: " in meaning
    assert describe("device", Settings.model_fields["device"])[0] == "DTN_DEVICE auto|cpu|cuda"
    assert describe("access_log", Settings.model_fields["access_log"]) == (
        "DTN_ACCESS_LOG true|false",
        "log a line for each request, at level info [default: False]",
    )
    assert describe("port", Settings.model_fields["port"])[0] == "DTN_PORT integer"


def test_mistyped_variables_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTN_API_KEY", "hush")
    monkeypatch.setenv("DTN_PORT", "9000")
    assert unknown_variables() == ["DTN_API_KEY"]


def test_files_set_what_they_are_named_after(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "dtn_database_url").write_text("postgresql://user:hush@host/db\n")
    (tmp_path / "DTN_API_KEYS").write_text("one,two\n")
    (tmp_path / "..data").mkdir()  # as Kubernetes mounts them
    (tmp_path / "postgres_password").write_text("another's")
    monkeypatch.setenv("DTN_SETTINGS_DIR", str(tmp_path))
    settings = Settings()
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://user:hush@host/db"
    assert [key.get_secret_value() for key in settings.api_keys] == ["one", "two"]
    assert "hush" not in repr(settings)
    assert unknown_variables() == []


def test_a_variable_goes_before_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "dtn_port").write_text("9000")
    assert Settings(settings_dir=tmp_path).port == 9000
    monkeypatch.setenv("DTN_PORT", "9001")
    assert Settings(settings_dir=tmp_path).port == 9001
    assert Settings(settings_dir=tmp_path, port=9002).port == 9002


def test_no_directory_of_secrets_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTN_SETTINGS_DIR", "")
    assert Settings().settings_dir is None


def test_secrets_that_cannot_be_had_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"settings_dir[^$]*cannot read .*missing"):
        Settings(settings_dir=tmp_path / "missing")
    (tmp_path / "dtn_api_keys").mkdir()
    with pytest.raises(ValidationError, match=r"settings_dir[^$]*cannot read .*dtn_api_keys"):
        Settings(settings_dir=tmp_path)
    (tmp_path / "dtn_api_keys").rmdir()
    (tmp_path / "dtn_api_key").write_text("hush")
    with pytest.raises(ValidationError, match="dtn_api_key is named after no setting") as refused:
        Settings(settings_dir=tmp_path)
    assert "hush" not in str(refused.value)
    (tmp_path / "dtn_api_key").rename(tmp_path / "dtn_api_keys")
    (tmp_path / "dtn_api_keys").write_bytes(b"\xff\xfe")
    with pytest.raises(ValidationError, match="dtn_api_keys is no text"):
        Settings(settings_dir=tmp_path)


def test_what_a_secret_s_file_holds_is_checked_as_a_variable_is(tmp_path: Path) -> None:
    (tmp_path / "dtn_api_keys").write_text("one,,hush")
    with pytest.raises(ValidationError, match="holds an empty key") as refused:
        Settings(settings_dir=tmp_path)
    assert "hush" not in str(refused.value)
