"""The settings file of a run or a sweep, written once beside its results and compared at every resume."""

from dataclasses import dataclass

from raylens.config.node import Node
from raylens.config.tree import differences
from raylens.config.yaml_io import dump_yaml, load_yaml
from raylens.errors import AlreadyExistsError, ConfigError, NotFoundError
from raylens.storage import Store

__all__ = ["SettingsFile"]


@dataclass(frozen=True)
class SettingsFile:
    """A file of the settings that must not differ between two starts."""

    kind: str
    """The owner of the settings in messages: a run or a sweep."""
    path: str
    free: tuple[str, ...]
    """Dotted keys that may differ, each with all keys below it."""

    def claim(self, store: Store, config: Node) -> None:
        """Write the settings if there are none yet; existing settings must agree (see `check`)."""
        try:
            store.write_once(self.path, dump_yaml(config).encode())
        except AlreadyExistsError:
            self.check(store, config)

    def check(self, store: Store, config: Node) -> None:
        """Refuse settings that differ from the existing ones, if there are any.

        Raises:
            ConfigError: settings differ; the message names each with both values.
        """
        try:
            saved = load_yaml(store.read_text(self.path), f"{store.describe()}/{self.path}")
        except NotFoundError:
            return
        wanted = config.model_dump(mode="json")
        if differing := differences(saved, wanted, ignore=self.free):
            raise ConfigError(
                f"{self.kind} {wanted['name']!r} exists at {store.describe()} with other settings: "
                f"{'; '.join(differing)}. Use another name, delete that folder, or go back to its settings"
            )
