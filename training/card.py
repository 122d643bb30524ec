"""CARD.md of a model folder, written from its manifest and nothing else."""

from typing import Any

ROWS = {
    "transfer_accuracy": "transfer accuracy: the judge reads G(x) as x's label (Table 1)",
    "threes_accuracy": "the same of 3s alone (Table 3)",
    "untransferred_accuracy": "the judge on pictures that were not transferred",
    "f_accuracy": "f on the same pictures",
    "f_accuracy_on_t": "f on t, whose labels it never saw",
    "judge_accuracy": "the judge on its own test set",
    "nearest_train": "t read by its nearest neighbour among G(train split) (Table 2)",
    "nearest_test": "the same among G(test split)",
    "nearest_train_by_gt": "G(t) read by its nearest neighbour among G(train split)",
    "nearest_test_by_gt": "the same among G(test split)",
    "taught_train": "t read by a classifier taught on G(train split)",
    "f_distance_mean": "mean ‖f(x) - f(G(x))‖",
    "median_rank_MobileFaceNet": "median rank in Table 4's search, judged by MobileFaceNet",
    "median_rank_share_MobileFaceNet": "the same as a share of the gallery",
    "median_rank_faceres": "median rank judged by faceres",
    "median_rank_share_faceres": "the same as a share of the gallery",
    "median_rank_at_256_MobileFaceNet": "MobileFaceNet, the emoji enlarged to 256 px",
    "median_rank_share_at_256_MobileFaceNet": "the same as a share of the gallery",
    "median_rank_at_256_faceres": "faceres, the emoji enlarged to 256 px",
    "median_rank_share_at_256_faceres": "the same as a share of the gallery",
    "median_rank_of_chosen_MobileFaceNet": "MobileFaceNet, of several photos Eq. 8's choice",
    "median_rank_share_of_chosen_MobileFaceNet": "the same as a share of the gallery",
    "median_rank_of_any_MobileFaceNet": "MobileFaceNet, any of these photos instead",
    "median_rank_share_of_any_MobileFaceNet": "the same as a share of the gallery",
    "median_rank_of_chosen_faceres": "faceres, of several photos Eq. 8's choice",
    "median_rank_share_of_chosen_faceres": "the same as a share of the gallery",
    "median_rank_of_any_faceres": "faceres, any of these photos instead",
    "median_rank_share_of_any_faceres": "the same as a share of the gallery",
    "rank_of_chosen_to_any_MobileFaceNet": "MobileFaceNet, what the choice multiplies a rank by",
    "rank_of_chosen_to_any_faceres": "faceres, what the choice multiplies a rank by",
    "lookup_median_rank_MobileFaceNet": "MobileFaceNet, the nearest of 8,000 avatars instead",
    "lookup_median_rank_faceres": "faceres, the nearest of 8,000 avatars instead",
    "skin_spearman": "skin, Spearman of L* between photo and emoji",
    "hair_spearman": "hair, Spearman of L* between photo and emoji",
    "spread_of_avatars": "mean f-distance of two emoji as a share of that of two avatars",
    "detected_t": "validity: a classifier takes avatars for generated",
    "detected_gt": "validity: and G(t) of avatars",
    "detected_gs": "validity: and G(s) of photographs",
    "gs_gt_auc": "validity: AUC of telling G(s) from G(t); 0.5 is alike, who is shown counts too",
}


def _figure(name: str, metric: dict[str, Any]) -> str:
    value = metric["value"]
    share = "accuracy" in name or name.startswith(("nearest", "taught"))
    shown = f"{100 * value:.2f} %" if share else f"{value}"
    if error := metric.get("times_or_by"):
        shown += f" (95 %: {value / error:.3f} to {value * error:.3f})"
    return f"| {ROWS.get(name, name)} | {shown} | `{metric['split']}` ({metric['n']:,}) |"


def _figures(manifest: dict[str, Any]) -> str:
    rows = "\n".join(_figure(name, metric) for name, metric in manifest["metrics"].items())
    return f"| figure | value | split (pictures) |\n|---|---|---|\n{rows}"


def _files(manifest: dict[str, Any]) -> str:
    files = manifest["graphs"] | ({"weights": manifest["weights"]} if "weights" in manifest else {})
    rows = "\n".join(
        f"| `{file['file']}` | {role} | {file['bytes']:,} | `{file['sha256'][:16]}…` |"
        for role, file in files.items()
    )
    return f"| file | gives | bytes | sha256 |\n|---|---|---|---|\n{rows}"


def card(manifest: dict[str, Any]) -> str:
    """Markdown for people: what the model does, how well, on what data, and its limits."""
    training, data = manifest["training"], manifest["data"]
    splits = ", ".join(f"`{name}` {size:,}" for name, size in data["splits"].items())
    return f"""# {manifest["name"]}@{manifest["version"]}

{manifest["source_domain"]} → {manifest["target_domain"]}.

A Domain Transfer Network (Taigman, Polyak and Wolf 2016), G = g∘f: f is a digit classifier
that stays frozen, g was learned without any label.

{_figures(manifest)}

Protocol: **{data["protocol"]}** ({splits}). Preset `{training["preset"]}`, seed
{training["seed"]}, trained on {training["device"]}, exported {manifest["created"]}. The
transfer accuracy is that of the exported graph.

{_files(manifest)}

Input `x`: uint8 [N, H, W, 3], any size; the graph repeats the edge to a square and shrinks to
32x32. Output `y`: uint8 [N, 32, 32, 1].

Limits: {manifest["limits"]}

Licence: {manifest["licence"]}
"""


def _joined(config: dict[str, Any]) -> str:
    """What f reads beside who it is."""
    parts = ["the colours of hair and skin"] if config["appearance"] else []
    if config["glasses"]:
        parts += ["a small network's reading of spectacles, taught without a label of a photograph"]
    return ", joined with " + "\nand with ".join(parts) if parts else ""


def _exaggerated(config: dict[str, Any]) -> str:
    """What else g is given than f(x)."""
    factor = config.get("caricature", 1.0)
    if factor == 1:
        return ""
    return f" An emoji is\na caricature: of f(x), g is given what tells who it is times {factor:g}."


def face_card(manifest: dict[str, Any]) -> str:
    """The card of a model of faces."""
    training, data = manifest["training"], manifest["data"]
    config = training["config"]
    splits = ", ".join(f"{name} {size:,}" for name, size in data["splits"].items())
    return f"""# {manifest["name"]}@{manifest["version"]}

{manifest["source_domain"]} → {manifest["target_domain"]}.

A Domain Transfer Network (Taigman, Polyak and Wolf 2016), G = g∘f. f is a face recognition
network that was given (dlib's ResNet-29, 256 numbers, trained by its author to tell people
apart){_joined(config)}. It stays frozen; g was
learned from photographs and avatars, without a pair and without a label.{_exaggerated(config)}

{_figures(manifest)}

Protocol: {data["protocol"]} ({splits}). No person of the figures was seen in training. Preset
`{training["preset"]}`, seed {training["seed"]}, trained on {training["device"]}, exported
{manifest["created"]}.

{_files(manifest)}

Input `x`: uint8 [N, H, W, 3], an aligned face: eyes level, their midpoint at (0.50, 0.48) of the
side, their distance 0.27 of it; `detect.onnx` finds faces and eyes. Output `y`: uint8
[N, 64, 64, 3]; `upscale.onnx` makes 512x512 of it. `f_distance` of
`distance.onnx` is Eq. 8's ‖f(x) − f(G(x))‖, of the 256 numbers that tell who it is, each at unit
length: 0 where they are the same, 1.41 where they have nothing in common.

Limits: {manifest["limits"]}

{_groups(manifest)}

Licence: {manifest["licence"]}
"""


def _groups(manifest: dict[str, Any]) -> str:
    """Likeness by group of people, where it was measured."""
    groups = manifest.get("groups") or {}
    if not groups:
        return "Likeness by group of people: not measured."

    def shown(value: float | None, how: str) -> str:
        return "–" if value is None else f"{value:{how}}"

    lines = "\n".join(
        f"| {name} | {group['n']} | {group['median_share']:.1%} |"
        + "|".join(
            f" {shown(colour['apart'], '.1f')} ({shown(colour['lighter'], '+.1f')}) |"
            f" {shown(colour['rho'], '.2f')} "
            for colour in (group["skin"], group["hair"])
        )
        + "|"
        for name, group in groups.items()
    )
    return f"""Likeness by group of people. Rank: median in Table 4's search as a share of the
gallery, judged by MobileFaceNet. Skin and hair: the mean difference in lightness between
photograph, as f reads it, and emoji (in brackets: by how much the emoji is lighter), in L* of 0
to 100, and Spearman's ρ of the two (–: fewer than 30 pairs). How light skin is was
measured in the photograph: light skin in dim light counts as dark. Women and men are whom the
network faceres takes for such in the photograph; it knows no other gender, errs at times, and
nobody was asked.

| group | people | rank | skin ΔL* | ρ | hair ΔL* | ρ |
|---|---|---|---|---|---|---|
{lines}"""
