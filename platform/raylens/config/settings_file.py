"""The settings of a run or a sweep: written once beside what it makes, and the same for whoever resumes it."""

from dataclasses import dataclass

from raylens.config.node import Node
from raylens.config.tree import differences
from raylens.config.yaml_io import dump_yaml, load_yaml
from raylens.errors import AlreadyExistsError, ConfigError, NotFoundError
from raylens.storage import Store

__all__ = ["SettingsFile"]


@dataclass(frozen=True)
class SettingsFile:
    """The file that says what may never differ between two starts."""

    kind: str
    """What has the settings, in messages: a run, a sweep."""
    path: str
    free: tuple[str, ...]
    """Dotted keys that may differ, each with all that is below it."""

    def claim(self, store: Store, config: Node) -> None:
        """Write the settings where there are none yet; those that are there must agree (see `check`)."""
        try:
            store.write_once(self.path, dump_yaml(config).encode())
        except AlreadyExistsError:
            self.check(store, config)

    def check(self, store: Store, config: Node) -> None:
        """Refuse other settings than those that are there, if there are some.

        Raises:
            ConfigError: names each setting, with both values.
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
