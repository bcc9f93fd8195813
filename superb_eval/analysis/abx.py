"""The phone ABX error of every layer of an upstream, recorded; `superb_eval.probing.phone_abx` defines it."""

from __future__ import annotations

from dataclasses import replace

from superb_eval.corpora import aligned_speech
from superb_eval.data import audio
from superb_eval.features import upstream_cache
from superb_eval.features.store import Store
from superb_eval.probing import phone_abx, phone_clusters
from superb_eval.results.layer_record import AbxMeasures, AbxTriples, LayerAbx
from superb_eval.runs.config import RunConfig
from superb_eval.runtime.progress import Progress


def measure(config: RunConfig, progress: Progress) -> AbxMeasures:
    """Measure every layer of a configuration's upstream, whose task and recipe are ignored, on the test half.

    Raises:
        UserError: fastabx is missing, the corpus has no alignment, no speakers or too few phones to compare, or the
            upstream can't process it.
    """
    phone_abx.check_library()
    size = "nano" if config.profile == "nano" else "mini"
    corpus = aligned_speech.read(config.data, size, progress, speaker=True)
    upstream = upstream_cache.load(config.upstream, config.device, config.store)
    store = Store(config.store, config.store_gb)
    test, stride = corpus.splits["test"], upstream.get_downsample_rates("hidden_states")
    tested = replace(corpus, splits={"test": test})
    dataset = phone_clusters.extract_frames(tested, upstream, config.device, store, progress)
    rows = dataset.read([audio.digest(utterance.clip) for utterance in test])
    abx = phone_abx.build(aligned_speech.tokens(test, [len(row) for row in rows], stride), config.seed, corpus.name)
    errors = []
    with progress.step("phone ABX", dataset.layers) as update:
        for layer in range(dataset.layers):
            errors.append(abx.errors([rows[t.clip][t.first : t.last, layer].float() for t in abx.tokens]))
            update(layer + 1)
    within, across = (AbxTriples(pairs=kind.pairs, triples=kind.triples) for kind in errors[0])
    progress.log(
        f"{len(abx.tokens)} tokens of {abx.phones} phones by {abx.speakers} speakers; {within.triples} triples of "
        f"{within.pairs} pairs of phones within speakers, {across.triples} of {across.pairs} across"
    )
    return AbxMeasures(
        corpus=corpus.name,
        seed=config.seed,
        phones=abx.phones,
        speakers=abx.speakers,
        tokens=len(abx.tokens),
        within=within,
        across=across,
        layers=[LayerAbx(layer=k, within=a.percent, across=b.percent) for k, (a, b) in enumerate(errors)],
    )
