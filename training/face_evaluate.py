"""What a finished faces run is worth: Table 4, Eq. 8, likeness, validity; metrics.json."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from training import face_groups, likeness, table4
from training.face_data import STUDIO, Faces, is_held_out, read_faces
from training.face_domains import draw_avatars
from training.face_networks import face_discriminator
from training.faces import TrainedFaces, faces_config
from training.networks import frozen, to_unit
from training.recognisers import Recogniser, faceres, faceres_man, mobile_face_net
from training.run import Run
from training.upscaler import Upscale, area
from training.upscaler_peers import DELIVERED

BATCH = 64
PROBE_AVATARS = 3000  # that teach the probes of glasses and beards
CLASSIFIER_STEPS = 600
# Probes of Table 4 whose ranks are among the metrics, and what these are called.
CHOSEN, DRAWN = "Eq. 8's choice at 256 px", "any photo at 256 px"
MEASURED = {
    "emoji (DTN)": "",
    "emoji at 256 px": "_at_256",
    CHOSEN: "_of_chosen",
    DRAWN: "_of_any",
}
LOTS = 20  # draws of any photo, for everyone


def drawn(g: nn.Module, fx: Tensor) -> Tensor:
    """g(f(x)) of f(x) [N, K]: uint8 [N, 64, 64, 3] on the CPU."""
    y: Tensor = g(fx)
    return y.add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu()


@torch.no_grad()
def emoji(trained: TrainedFaces, photos: Tensor) -> tuple[Tensor, Tensor]:
    """G(x) of uint8 [N, S, S, 3] as uint8 [N, 64, 64, 3], and Eq. 8's ‖f(x) - f(G(x))‖ [N], of
    what f compares."""
    pictures, distances = [], []
    device = trained.f.mean.device
    for chunk in torch.split(photos, BATCH):
        fx = trained.f.features(to_unit(chunk.permute(0, 3, 1, 2).to(device)))
        y = drawn(trained.g, fx)
        again = trained.f.features(to_unit(y.permute(0, 3, 1, 2).to(device)))
        apart = trained.f.compared(fx) - trained.f.compared(again)
        distances.append(apart.norm(dim=1).cpu())
        pictures.append(y)
    return torch.cat(pictures), torch.cat(distances)


@torch.no_grad()
def embedded(trained: TrainedFaces, pictures: Tensor) -> Tensor:
    """f of uint8 [N, S, S, 3]: [N, K] on the CPU."""
    device = trained.f.mean.device
    chunks = torch.split(pictures.permute(0, 3, 1, 2), BATCH)
    return torch.cat([trained.f.features(to_unit(chunk.to(device))).cpu() for chunk in chunks])


def spread(features: Tensor) -> float:
    """Mean distance of pairs of features [N, K] drawn by lot."""
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    return float((features - features[order]).norm(dim=1).mean())


def best_of_several(
    trained: TrainedFaces,
    photos: Sequence[Faces],
    people: list[str],
    judges: Sequence[Recogniser],
    cache: Path,
    upscale: Upscale,
    seed: int = 0,
) -> tuple[list[table4.Row], dict[str, tuple[float, float]]]:
    """Two rows of Table 4 for each of `judges`, of emoji as delivered: Eq. 8's choice, and any.

    LOTS times for everyone of `people` one of their pictures is looked for in s' ∪ {x'} by the
    emoji of another: by the one that Eq. 8 chooses among all others, and by any of them. Beside
    the rows, by the judges' names: by what the choice multiplies ranks, as geometric mean over
    people, and by what a factor it may be off (95 %).
    """
    faces = photos[0]
    wanted = table4.search([name for some in photos for name in some.identities], people)
    others = wanted.gallery[len(people) :]
    read = [torch.cat([table4.embeddings(j, some, cache) for some in photos]) for j in judges]
    random = torch.Generator().manual_seed(seed)
    chosen: list[list[Tensor]] = [[] for _ in judges]
    drawn: list[list[Tensor]] = [[] for _ in judges]
    for person in tqdm(people, "Eq. 8", leave=False):
        own = torch.tensor([k for k, name in enumerate(faces.identities) if name == person])
        pictures, distances = emoji(trained, faces.images[own].permute(0, 2, 3, 1))
        large = table4.enlarge(area(upscale(pictures), DELIVERED))
        mate = torch.randint(len(own), (LOTS,), generator=random)
        any_other = (mate + torch.randint(1, len(own), (LOTS,), generator=random)) % len(own)
        left = distances.expand(LOTS, -1).scatter(1, mate[:, None], torch.inf)
        for k, judge in enumerate(judges):
            probes = judge.embed(large).cpu()
            among, of_mates = probes @ read[k][others].T, probes @ read[k][own].T
            for found, probe in ((chosen[k], left.argmin(1)), (drawn[k], any_other)):
                found.append(table4.places(of_mates[probe, mate], among[probe]))
    rows, gains = [], {}
    for k, judge in enumerate(judges):
        for name, found in ((CHOSEN, chosen[k]), (DRAWN, drawn[k])):
            row = table4.row(judge.name, name, torch.cat(found), len(others) + 1)
            rows.append(replace(row, n=len(people)))
        gain = (torch.stack(chosen[k]).log() - torch.stack(drawn[k]).log()).mean(1)
        error = 1.96 * gain.std(correction=0) / len(gain) ** 0.5
        gains[judge.name] = (float(gain.mean().exp()), float(error.exp()))
    return rows, gains


def learned(classes: Sequence[Sequence[Tensor]], seed: int = 0) -> nn.Module:
    """A small classifier, taught for CLASSIFIER_STEPS to tell `classes` of pictures apart.

    Each class is one or more float [N, 3, 64, 64] in [-1, 1]; a batch holds 32 of each class,
    drawn evenly from its parts.
    """
    torch.manual_seed(seed)
    net = face_discriminator(64, 32)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    truth = torch.arange(len(classes)).repeat_interleave(32)
    for _ in range(CLASSIFIER_STEPS):
        batch = [
            part[torch.randint(len(part), (32 // len(parts),))]
            for parts in classes
            for part in parts
        ]
        loss = F.cross_entropy(net(torch.cat(batch)), truth)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return frozen(net)


def auc(of_ones: Tensor, of_zeros: Tensor) -> float:
    """How often a score of the first [N] is above one of the second [M]; ties count half."""
    difference = of_ones[:, None] - of_zeros
    return float((difference > 0).double().mean() + (difference == 0).double().mean() / 2)


def detection(t: Tensor, gt: Tensor, gs: Tensor) -> dict[str, float]:
    """Validity, by classifiers taught on two thirds of uint8 pictures [N, 64, 64, 3].

    `detected_*`: how often one of T against G(x) calls unseen pictures generated. Where G(s) is
    as much in T as G(t) is, it finds both equally often; once it finds all of both, that says no
    more. `gs_gt_auc`: the area under the curve of another, of G(s) against G(t), with the same
    budget. 0.5: nothing tells what is drawn of photographs from what is drawn of avatars; but
    photographs show other people than T does, and that counts, too.
    """
    parts = [to_unit(x.permute(0, 3, 1, 2)) for x in (t, gt, gs)]
    train = [x[: 2 * len(x) // 3] for x in parts]
    test = dict(zip(("t", "gt", "gs"), (x[2 * len(x) // 3 :] for x in parts), strict=True))
    generated = learned(([train[0]], train[1:]))
    found = {
        f"detected_{name}": float((generated(x).argmax(1) == 1).float().mean())
        for name, x in test.items()
    }
    of_s = learned(([train[1]], [train[2]]))
    scores = {name: of_s(test[name])[:, 1] - of_s(test[name])[:, 0] for name in ("gs", "gt")}
    return found | {"gs_gt_auc": auc(scores["gs"], scores["gt"])}


def judges(networks: Path) -> list[Recogniser]:
    """The networks of Table 4 that had no part in training."""
    return [mobile_face_net(networks), faceres(networks)]


def likeness_by_group(
    trained: TrainedFaces,
    photos: Sequence[Faces],
    people: list[str],
    pairs: tuple[Tensor, Tensor],
    judge: Recogniser,
    data: Path,
    cache: Path,
) -> dict[str, face_groups.Group]:
    """Rank and colours of the emoji of `people`, all and by group.

    `pairs` are their photographs x and emoji G(x), uint8 [P, S, S, 3]; ranks are by `judge`.
    """
    x, gx = pairs
    identities = [name for faces in photos for name in faces.identities]
    wanted = table4.search(identities, people)
    gallery = table4.gallery_before(judge, photos, wanted, cache)
    large = table4.enlarge(gx)
    ranks = table4.ranks(judge.embed(large).cpu(), torch.arange(len(people)), gallery)
    skin, hair = face_groups.as_f_reads(trained.f, x)
    return face_groups.by_group(
        {
            "everyone": torch.ones(len(x), dtype=torch.bool),
            **face_groups.fifths(likeness.skin(x)[:, 0]),
            **face_groups.gender_groups(faceres_man(data / "networks"), x),
        },
        ranks / len(gallery),
        (skin, likeness.skin(large)),
        (hair, likeness.hair(large)),
    )


def evaluate_faces(run: Run, trained: TrainedFaces, data: Path, upscale: Upscale) -> dict[str, Any]:
    """Measure `trained` on held-out people; table4.json, likeness.json, metrics.json.

    Table 4 is of G(x), and of G(x) as it is delivered by default, too: enlarged by `upscale`.
    So is Eq. 8, of the people with four pictures or more.
    Raises FileNotFoundError where the faces or the judges' networks are missing.
    """
    config = faces_config(run, to_emoji=True)
    cache = run.folder.parent / "cache"
    photos = [read_faces(data / "faces", name) for name in ("lfw", *STUDIO)]
    lfw = photos[0]
    counts = Counter(lfw.identities)
    people = sorted(name for name, n in counts.items() if is_held_out(name, n))
    in_s = [file for faces in photos for file in faces.files]
    held = {f for f, name in zip(lfw.files, lfw.identities, strict=True) if name in set(people)}
    in_s = [file for file in in_s if file not in held]
    t, attributes = draw_avatars(cache, config.avatars)
    avatars = t.permute(0, 2, 3, 1)
    of_avatars = embedded(trained, avatars[::4])

    def nearest(x: Tensor) -> Tensor:
        return torch.cdist(embedded(trained, x), of_avatars).argmin(1) * 4

    net = judges(data / "networks")
    table = table4.table4(
        photos,
        people,
        net,
        cache,
        {
            "emoji (DTN)": lambda x: emoji(trained, x)[0],
            "emoji at 256 px": lambda x: area(upscale(emoji(trained, x)[0]), DELIVERED),
            "photo": table4.photo,
            "photo at 64 px": table4.small_photo,
            "nearest avatar (f)": table4.nearest_avatar(avatars, nearest),
            "random avatar": table4.random_avatar(avatars),
        },
        in_s,
    )
    several = [name for name in people if counts[name] >= 4]
    rows, gains = best_of_several(trained, photos, several, net, cache, upscale)
    table.rows.extend(rows)
    table4.write(table, run.folder)

    probes = table4.search(lfw.identities, people).probes
    x = lfw.images[probes].permute(0, 2, 3, 1)
    gx, distances = emoji(trained, x)
    some = avatars[:PROBE_AVATARS]
    known = attributes[:PROBE_AVATARS]
    alike = likeness.likeness(
        x,
        likeness.read_traits([lfw.files[i] for i in probes]),
        gx,
        some,
        {
            "glasses": torch.tensor([a["glasses"] != "none" for a in known]),
            "facial_hair": torch.tensor([a["beard"] != "none" for a in known]),
        },
        net[:1],
    )
    likeness.write(alike, run.folder)
    groups = likeness_by_group(trained, photos, people, (x, gx), net[0], data, cache)
    everyone = lfw.images[[i for i, file in enumerate(lfw.files) if file in held]]
    gs = emoji(trained, everyone.permute(0, 2, 3, 1))[0]
    gt = emoji(trained, avatars[-2000:])[0]
    found = detection(avatars[-2000:], gt, gs)
    wide = spread(embedded(trained, gx)) / spread(of_avatars)

    def figure(value: float, n: int, split: str = "LFW held out") -> dict[str, Any]:
        return {"value": round(value, 5), "split": split, "n": n}

    metrics = {
        f"{short}{MEASURED[row.probe]}_{row.judge}": figure(getattr(row, field), row.n)
        for row in table.rows
        if row.probe in MEASURED
        for short, field in (("median_rank", "median"), ("median_rank_share", "median_share"))
    }
    metrics |= {
        f"rank_of_chosen_to_any_{judge}": figure(factor, len(several))
        | {"times_or_by": round(error, 5)}
        for judge, (factor, error) in gains.items()
    }
    metrics |= {
        f"lookup_median_rank_{row.judge}": figure(row.median, row.n)
        for row in table.rows
        if row.probe.startswith("nearest")
    }
    metrics |= {
        "skin_spearman": figure(alike.skin.rho or 0.0, alike.skin.n),
        "hair_spearman": figure(alike.hair.rho or 0.0, alike.hair.n),
        "spread_of_avatars": figure(wide, len(gx)),
        "f_distance_mean": figure(float(distances.mean()), len(gx)),
        **{
            name: figure(found[name], len(x) - 2 * len(x) // 3, split)
            for name, x, split in (
                ("detected_t", gt, "avatars (t)"),
                ("detected_gt", gt, "avatars (t)"),
                ("detected_gs", gs, "LFW held out"),
                ("gs_gt_auc", gs, "LFW held out"),
            )
        },
    }
    result = {
        "preset": run.name,
        "seed": config.seed,
        "gallery": table.gallery,
        "metrics": metrics,
        "groups": {name: asdict(group) for name, group in groups.items()},
    }
    (run.folder / "metrics.json").write_text(json.dumps(result, indent=2) + "\n")
    return result
