"""Moving the aliases of a store: promote, roll back, remove, compare and swap."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from mvc_callbacks.aliases import AliasTable
from mvc_callbacks.commit import now, user
from mvc_callbacks.errors import AliasMoved, BadName, MVCWarning, UnknownRef
from mvc_callbacks.rebuilding import Rebuilder
from mvc_callbacks.refs import check_name
from mvc_callbacks.store_views import StoreViewer
from mvc_callbacks.versions import AliasMove, Version

__all__ = ["AliasMover"]


class AliasMover(StoreViewer):
    """A store whose aliases move, each move under the store's lock and with an event."""

    def promote(
        self, ref: str | Version, name: str, *, why: str = "", expect: str | Version | None = None
    ) -> Version:
        """Point an alias to a version.

        Args:
            ref: A ref, or a version.
            name: The alias, such as ``production``; made where it is new.
            why: Kept in the log.
            expect: Move it only if it points to this version now (a ref, or a version); ``"-"``: only if
                there is no such alias yet. Compared under the store's lock: of two pipelines that expect
                the same, one moves it.

        Returns:
            The version.

        Raises:
            AliasMoved: If it does not point to what was expected; nothing was changed.
            BadName: If the name cannot be one, or is a run's label.
            PrunedVersion: If the version's weights were pruned.
        """
        check_name(name, "alias")
        version = self._version(ref)
        self._refuse_pruned(version, "weights")
        return self._move(name, lambda _: version.id, "promote", why, expect)

    def rollback(self, name: str, *, why: str = "", expect: str | Version | None = None) -> Version:
        """Point an alias back to where it was before its last promotion.

        Args:
            name: The alias.
            why: Kept in the log.
            expect: As for `promote`.

        Returns:
            The version that it points to now.

        Raises:
            AliasMoved: If it does not point to what was expected; nothing was changed.
            UnknownRef: If there is no such alias, or nothing before.
            PrunedVersion: If that version's weights were pruned.
        """
        self._layout.check()
        return self._move(name, lambda table: table.undo_target(name), "rollback", why, expect)

    def remove_alias(self, name: str, *, why: str = "", expect: str | Version | None = None) -> AliasMove:
        """Remove an alias; what it pointed to stays, and is protected from pruning no more.

        Its log stays, and tells of the removal. The name may be used again, and then begins anew: it is not
        rolled back to what it pointed to before.

        Args:
            name: The alias.
            why: Kept in the log.
            expect: As for `promote`.

        Returns:
            The move: ``previous`` is the version that it pointed to.

        Raises:
            AliasMoved: If it does not point to what was expected; nothing was changed.
            UnknownRef: If there is no such alias.
        """
        layout = self._layout
        layout.check()
        layout.open_for_writing()
        layout.make_staging()
        with layout.lock(f"removing the alias {name}"):
            table = self._whole_aliases()
            if expect is not None:
                self._expect(name, table.current().get(name), expect)
            if name not in table.current():
                raise UnknownRef(f"there is no alias {name!r:.80}; `mvc aliases` lists them")
            return self._record(table, name, None, "remove", why)

    def _move(
        self,
        name: str,
        target: Callable[[AliasTable], str],
        how: str,
        why: str,
        expect: str | Version | None,
    ) -> Version:
        layout = self._layout
        layout.open_for_writing()
        layout.make_staging()
        with layout.lock(f"moving the alias {name}"):
            table = self._whole_aliases()
            current = table.current()
            known = [*layout.history.runs(), *(each for each in current if each != name)]
            if name.lower() in {each.lower() for each in known}:
                raise BadName(f"{name!r} is taken by a run or another alias; choose another name")
            if expect is not None:
                self._expect(name, current.get(name), expect)
            version = self.version_from(self._finder().by_id(target(table)))
            self._refuse_pruned(version, "weights")
            self._record(table, name, version.id, how, why)
        return version

    def _record(self, table: AliasTable, name: str, identity: str | None, how: str, why: str) -> AliasMove:
        told = AliasMove(name, identity, table.current().get(name), now(), how, why, user())
        fields = {**told.to_dict(), "event": "alias", "turn": table.next_turn(name)}
        table.append(self._layout.events.write(fields), fields)
        return told

    def _expect(self, name: str, current: str | None, expect: str | Version) -> None:
        wanted = None if expect == "-" else self._version(expect)
        if current == (wanted.id if wanted is not None else None):
            return
        there = "does not exist" if current is None else f"points to {self._named(current)}"
        named = "no such alias" if wanted is None else f"{wanted.run}/{wanted.number} ({wanted.short_id})"
        raise AliasMoved(
            f"the alias {name!r} {there}, and {named} was expected: somebody else has moved it. It was left "
            f"alone; `mvc alias-log {name}` tells who and why"
        )

    def _named(self, identity: str) -> str:
        try:
            row = self._finder().by_id(identity)
            return f"{row['run']}/{row['number']} ({identity[:12]})"
        except UnknownRef:
            return identity[:12]

    def _whole_aliases(self) -> AliasTable:
        """Return the aliases, made again where they were lost: or nothing is protected. Hold the lock."""
        table = self._aliases()
        if not table.exists():
            warnings.warn(f"the aliases of {self.path} were gone and were made again", MVCWarning, 4)
            Rebuilder(self._layout).rebuild_aliases()
        return table
