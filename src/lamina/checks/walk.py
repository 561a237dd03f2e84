"""The walk that makes a `View`: every stage in order, every instruction with what is known there.

In: the parsed file and `view.CheckOptions`. Out: a `view.View`. The walk knows what conversion knows (variables in
scope, what stages inherit from each other, what was set before), but makes no graph, so it needs nothing and asks
nobody. Where conversion would fail it goes on with what it has: errors are conversion's to tell.

Invariants: linear in the file; what is not (variables and triggers that stages inherit) is bounded, see `_Budget`.
Nothing here raises for what the file says.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lamina.checks.view import CheckOptions, Expanded, StageView, State, Step, View
from lamina.dockerfile import instructions as ins
from lamina.dockerfile.parser import parse_instruction
from lamina.dockerfile.words import Expansion, Words
from lamina.errors import InputError, SourceRange
from lamina.oci.platform import Platform

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NEVER_UNDEFINED = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})


def look_at(dockerfile: ins.Dockerfile, options: CheckOptions) -> View:
    """Walk a parsed file."""
    return _Walk(dockerfile, options).view()


def expand(words: Words, text: str, env: Mapping[str, str]) -> Expanded:
    """Return `text` with its variables put in, never raising."""
    try:
        found = words.word(text, env)
    except InputError:
        return Expanded(text, failed=True)
    return Expanded(text, found.text, found.used, found.missing)


class _Walk:
    """One walk over one file."""

    def __init__(self, dockerfile: ins.Dockerfile, options: CheckOptions) -> None:
        self.dockerfile, self.options = dockerfile, options
        self.words = Words(dockerfile.escape)
        target = dockerfile.stage(options.target) if options.target else dockerfile.stages[-1]
        self.target = target
        self.defaults = _built_in(options, options.target or dockerfile.stages[-1].name)
        self.globals = self._global_args(options.build_args) or dict(self.defaults)
        self.by_name: dict[str, int] = {}
        self.known_names, self.inherited, self.triggers = _Budget(100_000), _Budget(2_000_000), _Budget(50_000)
        self.views: list[StageView] = []

    def view(self) -> View:
        """Walk all stages."""
        images = [expand(self.words, stage.base.image, self.globals) for stage in self.dockerfile.stages]
        needed = self._needed(images)
        for stage, image in zip(self.dockerfile.stages, images, strict=True):
            self.views.append(self._stage(stage, image, needed[stage.number]))
            if stage.name:
                self.by_name[stage.name] = stage.number
        return View(
            self.dockerfile,
            self.options,
            tuple(self.views),
            self.views[self.target.number] if self.target else None,
            self.globals,
            self._global_args({}),
            tuple(self.dockerfile.text.split("\n")),
        )

    def _global_args(self, build_args: Mapping[str, str]) -> dict[str, str] | None:
        """Return the global arguments; None when one cannot be expanded."""
        values = dict(self.defaults)
        for arg in self.dockerfile.global_args:
            for name, default in arg.pairs:
                if name in build_args:
                    values[name] = build_args[name]
                elif default is not None:
                    found = expand(self.words, default, values)
                    if found.failed:
                        return None
                    values[name] = found.result
        return values

    def _needed(self, images: Sequence[Expanded]) -> list[bool]:
        """Tell of each stage whether it matters."""
        stages = self.dockerfile.stages
        if self.options.all_stages or self.target is None:
            return [True] * len(stages)
        names: dict[str, int] = {}
        below: list[list[int]] = []
        last = {stage.name: stage.number for stage in stages if stage.name}
        for stage, image in zip(stages, images, strict=True):
            found = [names[image.result.lower()]] if image.result.lower() in names else []
            for item in stage.instructions:
                found += [number for name in _named(item) if (number := self._number(name, last)) is not None]
            below.append(found)
            if stage.name:
                names[stage.name] = stage.number
        needed = [False] * len(stages)
        stack = [self.target.number]
        while stack:
            number = stack.pop()
            if not needed[number]:
                needed[number] = True
                stack += below[number]
        return needed

    def _number(self, name: str, last: Mapping[str, int]) -> int | None:
        """Return the stage that `--from=name` means."""
        number = last.get(name.lower())
        if number is None and name.isascii() and name.isdigit() and int(name[:9]) < len(self.dockerfile.stages):
            number = int(name[:9])
        return number

    def _stage(self, stage: ins.Stage, image: Expanded, reachable: bool) -> StageView:
        """Walk one stage."""
        platform = expand(self.words, stage.base.platform, self.globals)
        number = self.by_name.get(image.result.lower())
        below = self.views[number] if number is not None else None
        if not reachable:
            return StageView(stage, image, platform, below, False, (), State(sure=False))
        state = self._inherit(below.end) if below else self._start(image.result, platform.result, stage.name)
        state.env.setdefault("PATH", DEFAULT_PATH)
        walk = _StageWalk(self.words, state, self.options.build_args, self.globals, self.known_names)
        for trigger in self._triggers(below, state, stage.base.source):
            walk.step(trigger)
        steps = tuple([walk.step(item) for item in stage.instructions])
        return StageView(stage, image, platform, below, True, steps, state)

    def _triggers(self, below: StageView | None, state: State, source: SourceRange) -> Iterator[ins.Instruction]:
        """Yield the ONBUILD instructions of what a stage is based on; they are not judged, but count."""
        if below is None:
            for text in _texts(_inner(state.config or {}).get("OnBuild")):
                try:
                    yield parse_instruction(text, source)
                except InputError:
                    continue  # conversion will tell
            return
        for step in below.steps:
            if not self.triggers.take(1):
                return
            if isinstance(step.item, ins.Onbuild):
                yield step.item.trigger

    def _inherit(self, end: State) -> State:
        """Return the state that a stage begins with that is based on another."""
        size = len(end.env) + len(end.args) + len(end.declared)
        return end.copy() if self.inherited.take(size) else State(sure=False)

    def _start(self, image: str, platform: str, name: str) -> State:
        """Return the state that an image leaves a stage in."""
        contexts = self.options.named_contexts
        if image in contexts or name in contexts or not image:
            return State(sure=False)
        if image == "scratch":
            return State(workdir="/")
        try:
            wanted = Platform.parse(platform) if platform else self.options.platform
        except InputError:
            return State(sure=False)
        config = self.options.base_config(image, wanted)
        if config is None:
            return State(sure=False)
        return _from_config(config)


class _Budget:
    """How much more work may be done that is not in proportion to the file; checks then know less."""

    def __init__(self, total: int) -> None:
        self._left = total

    def take(self, amount: int) -> bool:
        """Tell whether so much more fits."""
        self._left -= amount
        return self._left >= 0


class _StageWalk:
    """The instructions of one stage, one after the other; `state` goes along."""

    def __init__(
        self,
        words: Words,
        state: State,
        build_args: Mapping[str, str],
        global_args: Mapping[str, str],
        budget: _Budget,
    ) -> None:
        self.words, self.state, self.build_args, self.globals = words, state, build_args, global_args
        self.budget = budget
        self.variables = {**state.args, **state.env}

    def step(self, item: ins.Instruction) -> Step:
        """Carry `item` out on the state, and return what it looked like from there."""
        state = self.state
        before = (state.user, state.workdir, state.workdir_set, state.shell_set)
        undefined: dict[str, None] = {}
        values = self._values(item, undefined)
        known: tuple[str, ...] = ()
        if undefined and self.budget.take(len(self.variables)):
            known = tuple(self.variables)
        self._take(item, values)
        return Step(item, values, tuple(undefined), known, *before)

    def _values(self, item: ins.Instruction, undefined: dict[str, None]) -> tuple[str, ...]:
        """Return `Step.values`, noting what is undefined in everything that takes variables."""
        if isinstance(item, ins.Env | ins.Label):
            found = [self._word(text, undefined) for pair in item.pairs for text in pair]
            return tuple(found) if isinstance(item, ins.Env) else ()
        if isinstance(item, ins.Arg):
            return self._arg(item, undefined)
        if isinstance(item, ins.Transfer):
            for text in (item.chown, item.chmod, item.checksum if isinstance(item, ins.Add) else ""):
                self._word(text, undefined)
            sources = tuple([self._word(text, undefined) for text in item.sources])
            self._word(item.dest, undefined)
            for inline in item.inline:
                if inline.expand:
                    self._note(lambda data=inline.data: self.words.document(data, self.variables), undefined)  # type: ignore[misc]
            return sources
        if isinstance(item, ins.Run):
            for mount in item.mounts:
                for part in mount.split(","):
                    self._word(part.partition("=")[2], undefined)
            return ()
        if isinstance(item, ins.Expose):
            return tuple([word for text in item.ports for word in self._split(text)])
        return tuple([self._word(text, undefined) for text in _single_words(item)])

    def _arg(self, item: ins.Arg, undefined: dict[str, None]) -> tuple[str, ...]:
        """Declare the arguments of ARG one by one: a default may use those before it."""
        for name, default in item.pairs:
            value = self.build_args.get(name)
            if value is None:
                value = self.globals.get(name) if default is None else self._word(default, undefined)
            if value is not None:
                self.state.args[name] = value
                if name not in self.state.env:
                    self.variables[name] = value
            self.state.declared.add(name)
        return tuple([name for name, _ in item.pairs])

    def _take(self, item: ins.Instruction, values: tuple[str, ...]) -> None:
        """Carry out what later instructions can see."""
        state = self.state
        if isinstance(item, ins.Env):
            new = dict(zip(values[::2], values[1::2], strict=True))
            state.env.update(new)
            self.variables.update(new)
        elif isinstance(item, ins.User):
            state.user = values[0]
        elif isinstance(item, ins.Shell):
            state.shell_set = True
        elif isinstance(item, ins.Workdir):
            if values[0].startswith("/") or state.workdir:
                state.workdir = posixpath.normpath(posixpath.join(state.workdir, values[0]))
            state.workdir_set = True

    def _word(self, text: str, undefined: dict[str, None]) -> str:
        """Return one expanded word."""
        found = self._note(lambda: self.words.word(text, self.variables), undefined) if text else None
        return found.text if found else ""

    def _split(self, text: str) -> tuple[str, ...]:
        found = self._note(lambda: self.words.word(text, self.variables), {})
        return found.words if found else ()

    def _note(self, expanding: Callable[[], Expansion], undefined: dict[str, None]) -> Expansion | None:
        """Return an expansion after noting what was undefined; None when it fails."""
        try:
            found = expanding()
        except InputError:
            return None
        if self.state.sure:
            missing = found.missing - self.state.declared - _NEVER_UNDEFINED
            undefined.update(dict.fromkeys(sorted(missing)))
        return found


def _single_words(item: ins.Instruction) -> tuple[str, ...]:
    """Return the texts of an instruction whose variables are put in one by one."""
    if isinstance(item, ins.Workdir):
        return (item.path,)
    if isinstance(item, ins.User):
        return (item.user,)
    if isinstance(item, ins.StopSignal):
        return (item.signal,)
    return item.paths if isinstance(item, ins.Volume) else ()


def _named(item: ins.Instruction) -> Iterator[str]:
    """Yield the names behind `from` in an instruction."""
    if isinstance(item, ins.Copy) and item.from_:
        yield item.from_
    elif isinstance(item, ins.Run):
        for mount in item.mounts:
            for part in mount.split(","):
                key, _, value = part.partition("=")
                if key.lower() == "from" and value:
                    yield value


def _from_config(config: Mapping[str, Any]) -> State:
    """Return the state that a base image's config leaves a stage in; what is misshapen is left out."""
    inner = _inner(config)
    state = State(config=config)
    for line in _texts(inner.get("Env")):
        name, _, value = line.partition("=")
        state.env[name] = value
    state.user = str(inner.get("User") or "")
    state.workdir = str(inner.get("WorkingDir") or "/")
    state.shell_set = bool(inner.get("Shell"))
    return state


def _inner(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what an image's config says of running it."""
    inner = config.get("config")
    return inner if isinstance(inner, Mapping) else {}


def _texts(value: object) -> Sequence[str]:
    """Return the texts of a list in a config that nobody has checked."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _built_in(options: CheckOptions, target: str) -> dict[str, str]:
    """Return the arguments that are there without being declared, before the first FROM."""
    found = {"TARGETSTAGE": target or "default"}
    for prefix, platform in (("BUILD", options.build_platform), ("TARGET", options.platform)):
        found |= {
            f"{prefix}PLATFORM": str(platform),
            f"{prefix}OS": platform.os,
            f"{prefix}OSVERSION": platform.os_version,
            f"{prefix}ARCH": platform.architecture,
            f"{prefix}VARIANT": platform.variant,
        }
    return {name: options.build_args.get(name, value) for name, value in found.items()}
