"""f of faces: what it reads, that it is frozen, that gradients pass."""

import math

import pytest
import torch

from tests.training.small import write_resnet29
from training.face_features import (
    ALIKE,
    APPEARANCE,
    AWAY,
    COLOURS,
    CORNERS,
    HAIR_LIFT,
    JAW,
    LIFT,
    MOST,
    PAINT,
    SEEN,
    SIDES,
    TOP,
    VIVID,
    WINDOWS,
    Colours,
    FaceFeatures,
    alike,
    appearance,
    exposed,
    face_features,
    light,
    raw_features,
)
from training.face_features import (
    SKIN as SKIN_NUMBERS,
)
from training.resnet29 import FEATURES, ResNet29, load_resnet29

AT_TOP = slice(3 * 3, 3 * (3 + len(TOP)))  # of `Colours`, after cheeks and forehead
AT_TOP_OF_RAW = slice(FEATURES + AT_TOP.start, FEATURES + AT_TOP.stop)
SKIN, HAIR = (0.5, 0.2, 0.0), (-0.6, -0.7, -0.8)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> ResNet29:
    return load_resnet29(write_resnet29(tmp_path_factory.mktemp("dlib") / "weights.dat"))


def face(long_hair: bool = False, bald: bool = False, beard: bool = False) -> torch.Tensor:
    """[1, 3, 152, 152]: skin in the middle, hair on top, white around."""
    x = torch.ones(1, 3, 152, 152)
    skin, hair = (torch.tensor(colour).view(3, 1, 1) for colour in (SKIN, HAIR))
    x[0, :, 30:, 38:114] = skin
    x[0, :, :30, 38:114] = skin if bald else hair
    if long_hair:
        x[0, :, 30:, :38] = x[0, :, 30:, 114:] = hair
    if beard:
        x[0, :, 100:, 38:114] = hair
    return x


def test_colours_of_skin_and_hair_are_read() -> None:
    colours = Colours()(face())
    assert colours.shape == (1, COLOURS)
    numbers = appearance(colours)[0]
    assert len(numbers) == APPEARANCE
    torch.testing.assert_close(numbers[:3], torch.tensor(SKIN), atol=0.02, rtol=0)
    torch.testing.assert_close(numbers[3:PAINT], torch.tensor(HAIR), atol=0.05, rtol=0)


LONG = slice(PAINT, PAINT + len(SIDES) // 2)
BALD = slice(LONG.stop, LONG.stop + len(TOP))
JAW_NUMBERS = slice(APPEARANCE - len(JAW), APPEARANCE)


def test_long_hair_a_bald_head_and_a_beard_are_told() -> None:
    read = Colours()
    short, long, bald, beard = (
        appearance(read(x))[0]
        for x in (face(), face(long_hair=True), face(bald=True), face(beard=True))
    )
    assert (short[LONG] < 0.05).all()
    assert (long[LONG] > 0.9).all()
    assert (short[BALD] < 0.05).all()
    assert (bald[BALD] > 0.9).all()
    assert (beard[JAW_NUMBERS][-3:] < short[JAW_NUMBERS][-3:] - 0.5).all()


def test_a_dark_background_and_hair_on_one_side_are_no_long_hair() -> None:
    before_a_wall, one_side = face(long_hair=True), face(long_hair=True)
    wall = torch.tensor(HAIR).view(3, 1, 1)
    before_a_wall[0, :, :30, :38] = before_a_wall[0, :, :30, 114:] = wall
    one_side[0, :, 30:, 114:] = 1
    for x in (before_a_wall, one_side):
        assert (appearance(Colours()(x))[0, LONG] < 0.05).all()


def test_colours_are_alike_or_not_and_seldom_between() -> None:
    a = torch.zeros(3)
    apart = [alike(a, torch.tensor([0.0, 0.0, each])).item() for each in (0, 0.2, ALIKE, 0.5, 1)]
    assert apart[0] > 0.98 and apart[1] > 0.9 and apart[3] < 0.05 and apart[4] < 1e-9
    assert apart[2] == pytest.approx(0.5)


def test_an_emoji_is_read_as_the_photograph_it_was_shrunk_from(net: ResNet29) -> None:
    f = face_features(net, appearance=True)
    smooth = torch.nn.functional.interpolate(torch.rand(2, 3, 6, 6), (152, 152), mode="bicubic")
    small = torch.nn.functional.interpolate(smooth, (64, 64), mode="area")
    large, reduced = f.raw(smooth), f.raw(small)
    assert (large - reduced).norm() < 0.1 * large.std(0).norm() * len(large[0]) ** 0.5


def raw_numbers(n: int, seed: int) -> torch.Tensor:
    """Of faces whose first number of identity tells how light their skin is, in uneven light."""
    random = torch.Generator().manual_seed(seed)
    identity = torch.randn(n, FEATURES, generator=random)
    colours = torch.rand(n, COLOURS, generator=random) * 0.4 - 0.2
    skin = 0.2 * identity[:, 0] + 0.2 * torch.randn(n, generator=random) - light(colours)
    return torch.cat([identity * 2 + 5, exposed(colours, skin - 0.7)], 1)


@pytest.fixture(scope="module")
def fitted(net: ResNet29) -> FaceFeatures:
    f = face_features(net, appearance=True)
    f.fit(raw_numbers(3000, 0), raw_numbers(300, 1), directions=2)
    return f


def test_fitted_numbers_are_standardised_and_the_domain_is_gone(net: ResNet29) -> None:
    f = FaceFeatures(net, appearance=True, weight=3.0)
    s, t = raw_numbers(2000, 0), raw_numbers(2000, 1)
    t[:, 7] += 8
    f.fit(s, t, directions=2)
    zs, zt = f.standardised(s, photograph=True), f.standardised(t, photograph=False)
    torch.testing.assert_close(zs.mean(0), torch.zeros(f.width), atol=1e-3, rtol=0)
    assert zs[:, FEATURES:].std(0).mean().item() == pytest.approx(3, abs=0.01)
    assert (zt.mean(0)[:FEATURES] - zs.mean(0)[:FEATURES]).norm() < 0.5  # it was 4
    torch.testing.assert_close(f.remove.T @ f.remove, torch.eye(2), atol=1e-4, rtol=0)


def test_light_is_the_logarithm_of_the_skin() -> None:
    skin = (torch.tensor(SKIN) + 1).mean() / 2
    assert light(Colours()(face())).item() == pytest.approx(skin.log().item(), abs=0.02)
    assert light(torch.full((1, COLOURS), -1.0)).isfinite().all()


def test_exposed_is_a_stronger_light_and_white_stays_white() -> None:
    colours = torch.tensor([[-1.0, -0.5, 0.0, 1.0]])
    doubled = exposed(colours, torch.tensor([2.0]).log())
    torch.testing.assert_close(doubled, torch.tensor([[-1.0, 0.0, 1.0, 1.0]]))


def test_fit_learns_which_skin_to_expect_of_whom(fitted: FaceFeatures) -> None:
    assert fitted.skin[0].item() == pytest.approx(0.2, abs=0.02)
    assert fitted.skin[1:].abs().max() < 0.05


@pytest.mark.parametrize("tone", [-0.3, 0.0, 0.3])
def test_a_dim_photograph_reads_like_one_in_good_light(fitted: FaceFeatures, tone: float) -> None:
    identity = fitted.mean[None, :FEATURES].clone()
    identity[0, 0] += tone / fitted.skin[0] * fitted.deviation[0]  # somebody of this skin
    good = exposed(Colours()(face()), fitted.skin_mean + tone - light(Colours()(face())))
    dim = exposed(good, torch.tensor([0.5]).log())
    raw = [torch.cat([identity, colours], 1) for colours in (good, dim)]
    assert (light(good) - light(dim)).item() == pytest.approx(0.69, abs=0.01)
    own = [fitted.own_skin(identity, light(each) - fitted.skin_mean).item() for each in (good, dim)]
    assert own[0] == pytest.approx(tone, abs=0.02)
    assert abs(own[0] - own[1]) < 0.3 * AWAY  # all that is left of the difference
    corrected, uncorrected = (
        (one - other).norm().item()
        for one, other in (
            [fitted.standardised(x, photograph) for x in raw] for photograph in (True, False)
        )
    )
    assert corrected < 0.5 * uncorrected


def test_skin_a_little_unlike_what_is_expected_is_believed_much_unlike_it_is_light(
    fitted: FaceFeatures,
) -> None:
    identity = fitted.mean[None, :FEATURES].repeat(4, 1)
    own = fitted.own_skin(identity, torch.tensor([0.0, -0.2, -0.3, -0.8]))
    away = [((own[0] - each) / AWAY).item() for each in own]
    assert away[1] == pytest.approx(0.96, abs=0.03) and 0.8 < away[2] < 1 and away[3] < 0.05


def test_skin_as_expected_of_somebody_is_theirs(fitted: FaceFeatures) -> None:
    identity = fitted.mean[None, :FEATURES].repeat(2, 1)
    identity[0, 0] -= fitted.deviation[0]
    dark, medium = fitted.own_skin(identity, torch.tensor([-0.2, 0.0]))
    assert dark.item() == pytest.approx(-0.2, abs=0.02)
    assert medium.item() == pytest.approx(0, abs=0.02)


def test_the_usual_shadow_of_a_photograph_is_taken_off(net: ResNet29) -> None:
    f = face_features(net, appearance=True)
    s, t = raw_numbers(500, 0), raw_numbers(500, 1)
    lip = FEATURES + 3 * (len(WINDOWS) - len(CORNERS) - len(JAW))
    s[:, lip : lip + 3] -= 0.3  # darker in most; a few wear a beard beside
    s[:50, lip : lip + 3] -= 0.5
    f.fit(s, t, directions=1)
    number = FEATURES + APPEARANCE - len(JAW)
    of_s, of_t = f.numbers(s, photograph=True)[:, number], f.numbers(t, photograph=False)[:, number]
    assert (of_s.median() - of_t.median()).abs() < 0.01
    assert of_s[:50].mean() < of_s.mean() - 0.2


def test_skin_and_hair_are_lifted(fitted: FaceFeatures) -> None:
    identity = fitted.mean[None, :FEATURES].clone()
    colours = torch.full((1, COLOURS), float(fitted.skin_mean.exp()) * 2 - 1)  # of the mean skin
    skin = colours[0, 0].item()
    colours[:, AT_TOP] = fitted.hair_mean.repeat(len(TOP))
    numbers = fitted.numbers(torch.cat([identity, colours], 1), photograph=True)[0, FEATURES:]
    lifted = torch.log((numbers[0] + 1) / (skin + 1)).item()
    assert lifted == pytest.approx(LIFT, abs=0.02)
    hair = numbers[SKIN_NUMBERS:PAINT].mean() + 1
    lifted = torch.log(hair / (fitted.hair_mean.mean() + 1)).item()
    assert lifted == pytest.approx(HAIR_LIFT, abs=0.02)


def test_who_is_lighter_is_drawn_lighter(fitted: FaceFeatures) -> None:
    """And the lighter, the less."""
    identity = fitted.mean[None, :FEATURES].repeat(6, 1)
    tones = torch.tensor([-0.9, -0.6, -0.3, -0.1, 0.1, 0.3])
    identity[:, 0] += tones / fitted.skin[0] * fitted.deviation[0]
    colours = (fitted.skin_mean + tones).exp()[:, None].repeat(1, COLOURS) * 2 - 1
    numbers = fitted.numbers(torch.cat([identity, colours], 1), photograph=True)
    drawn = torch.log((numbers[:, FEATURES] + 1) / 2)
    slopes = drawn.diff() / tones.diff()
    assert (slopes > 0.5).all() and (slopes.diff() < 0).all()


def test_fit_learns_which_hair_to_expect_of_whom(net: ResNet29) -> None:
    f = face_features(net, appearance=True)
    s = raw_numbers(3000, 2)
    s[:, AT_TOP_OF_RAW] += 0.05 * (s[:, 1:2] - 5)
    f.fit(s, raw_numbers(300, 3), directions=1)
    identity = f.mean[None, :FEATURES].repeat(2, 1)
    identity[1, 1] += f.deviation[1]
    seen = f.hair_mean.repeat(2, 1)
    usual, fair = f.own_hair(identity, seen)
    assert (fair - usual > 0.04).all()  # though they look the same
    _, dark = f.own_hair(identity[:1].repeat(2, 1), torch.stack([seen[0], seen[0] - 0.2]))
    assert (usual - dark > 0.08).all()  # and what is seen counts


def test_hair_differs_as_much_as_it_is_seen_to(fitted: FaceFeatures) -> None:
    s = raw_numbers(3000, 0)
    identity, colours = s[:, :FEATURES], s[:, FEATURES:]
    seen = fitted.in_good_light(identity, colours)[1][:, SKIN_NUMBERS:PAINT]
    wider = fitted.own_hair(identity, seen).mean(1).std() / seen.mean(1).std()
    assert wider.log().item() == pytest.approx(HAIR_LIFT, abs=0.1)


def test_hair_is_drawn_more_colourful_than_seen(fitted: FaceFeatures) -> None:
    identity = fitted.mean[None, :FEATURES].repeat(2, 1)
    lighter = torch.tensor([[0.1, 0.1, 0.1], [0.2, 0.1, 0.0]])  # grey and red
    grey, red = fitted.own_hair(identity, fitted.hair_mean + lighter)
    assert grey.mean().item() == pytest.approx(red.mean().item(), abs=1e-4)
    as_seen = fitted.hair_spread * SEEN * math.exp(HAIR_LIFT) * (lighter[1] - lighter[0])
    torch.testing.assert_close(red - grey, VIVID * as_seen)


def test_a_correction_has_a_limit(fitted: FaceFeatures) -> None:
    identity = fitted.mean[None, :FEATURES].clone()
    black = torch.full((1, COLOURS), -0.99)
    hair = fitted.in_good_light(identity, black)[1][0, SKIN_NUMBERS]
    assert hair.item() == pytest.approx(0.01 * math.exp(MOST) - 1, abs=1e-4)


def test_avatars_are_never_corrected(fitted: FaceFeatures) -> None:
    raw = raw_numbers(5, 2)
    as_they_are = appearance(raw[:, FEATURES:])
    assert torch.equal(fitted.numbers(raw, photograph=False)[:, FEATURES:], as_they_are)
    assert not torch.equal(fitted.numbers(raw, photograph=True)[:, FEATURES:], as_they_are)
    avatar = torch.rand(1, 3, 64, 64)
    expected = fitted.standardised(fitted.raw(avatar), photograph=False)
    assert torch.equal(fitted.features(avatar), expected)


@pytest.mark.parametrize("side", [64, 152])
def test_gradients_pass_through_a_frozen_f(net: ResNet29, side: int) -> None:
    f = face_features(net, appearance=True)
    x = torch.rand(1, 3, side, side, requires_grad=True)
    f.features(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0
    assert not f.training
    assert all(not weight.requires_grad and weight.grad is None for weight in f.parameters())


def test_raw_features_of_bytes_are_those_of_f(net: ResNet29) -> None:
    f = face_features(net, appearance=False)
    images = torch.randint(0, 256, (5, 3, 152, 152), dtype=torch.uint8)
    raw = raw_features(f, images, batch=2)
    assert raw.shape == (5, FEATURES)
    exact = f.raw(images.float() / 127.5 - 1)
    assert (raw - exact).abs().mean() < 0.02 * exact.std()


def test_eq8_compares_who_it_is_whatever_the_colours(net: ResNet29) -> None:
    f = face_features(net, appearance=True)
    fx = torch.randn(4, f.width, generator=torch.Generator().manual_seed(0))
    compared = f.compared(fx)
    assert compared.shape == (4, FEATURES)
    torch.testing.assert_close(compared.norm(dim=1), torch.ones(4))
    other = torch.cat([3 * fx[:, :FEATURES], torch.zeros(4, f.width - FEATURES)], 1)
    torch.testing.assert_close(f.compared(other), compared)
    assert (f.compared(fx.flip(0)) - compared).norm(dim=1).min() > 1
