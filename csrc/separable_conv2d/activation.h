// The activations on an array of float32, for any number of lanes: every instruction set's file compiles its own copy.
//
//     relu max(x, 0)   relu6 min(relu(x), 6)   hardswish x relu6(x + 3) / 6   elu x > 0 ? x : e^x - 1
//     silu x e^x / (1 + e^x)                   gelu x Phi(x), Phi the normal distribution function
//
// Errors over all float32 numbers: docs/numerics.md, measured by csrc/checks/activations.cpp. NaN and infinities give
// what torch.nn.functional gives. Where the true result is a normal number no step before the last is subnormal, so
// the results hold with FTZ and DAZ set, too.
//
// Polynomials: Remez fits of our own (csrc/checks/fit_activations.py). The splitting of e^x into 2^n e^r with ln 2 in
// two parts is that of Cody & Waite, Software Manual for the Elementary Functions, 1980, chapter 6.
#pragma once

#include <stdint.h>

#include "kernel.h"

namespace sepwise {
namespace {

template <int L>
struct Lanes {
  typedef float F __attribute__((vector_size(4 * L)));
  typedef int32_t I __attribute__((vector_size(4 * L)));

  // e^(x + rest) = power * scale * 2^-64, for -112 < x <= 0 and a small `rest`. The scale is a normal number for each
  // such x, so that the caller can multiply by 2^-64 last and round a subnormal result once.
  struct Exponential {
    F power, scale;
  };

  static constexpr float unscale = 0x1p-64f;

  // e^r = 1 + r + r^2 tail(r), |r| <= ln(2) / 2; the error is 4.2e-9.
  [[gnu::always_inline]] static F tail(F r) {
    return (((0x1.6db5c6p-10f * r + 0x1.123c76p-7f) * r + 0x1.55545cp-5f) * r + 0x1.55548ep-3f) * r + 0.5f;
  }

  // n = x / ln(2) to the nearest integer, as a float and as an integer.
  [[gnu::always_inline]] static F whole(F x, I& n) {
    const F shifted = x * 0x1.715476p+0f + 0x1.8p23f;  // the last bit of 1.5 * 2^23 counts ones
    n = (I)shifted - 0x4b400000;
    return shifted - 0x1.8p23f;
  }

  // x - n ln(2): the first part of ln(2) has 15 bits, so the first product and difference are exact.
  [[gnu::always_inline]] static F remainder(F x, F n) { return (x - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f; }

  [[gnu::always_inline]] static Exponential exponential(F x, F rest) {
    I n;
    const F r = remainder(x, whole(x + rest, n)) + rest;
    return {r * r * tail(r) + r + 1.0f, (F)((n + (127 + 64)) << 23)};
  }

  [[gnu::always_inline]] static F magnitude(F x) { return (F)((I)x & 0x7fffffff); }

  // x < 0 ? 0 : x keeps NaN, and is one instruction.
  [[gnu::always_inline]] static F relu(F x) { return x < 0.0f ? F{} : x; }

  [[gnu::always_inline]] static F relu6(F x) {
    const F positive = relu(x);
    return positive > 6.0f ? F{} + 6.0f : positive;
  }

  [[gnu::always_inline]] static F hardswish(F x) { return x * (relu6(x + 3.0f) * (1.0f / 6.0f)); }

  // With e = e^-|x|: x / (1 + e), times e where x < 0. Below -110 the result is 0, and NaN at -inf, as -inf * 0 is.
  [[gnu::always_inline]] static F silu(F x) {
    const F distance = magnitude(x);
    const I far = distance > 110.0f;
    const Exponential e = exponential(-(far ? F{} + 110.0f : distance), F{});
    const F scaled = far ? F{} : e.power * e.scale;
    const F half = x / (1.0f + scaled * unscale);
    return x < 0.0f ? half * scaled * unscale : half;
  }

  // x Phi(x), in two forms. |x| < 1: Phi = 1/2 + x middle(x^2), of error 2.9e-8. Beyond, with t = |x|,
  // Phi(-t) = e^(-t^2 / 2) g(u) / (t + 3), u = (t - 3) / (t + 3), of error 4.4e-8: the variable of Shepherd & Laframboise,
  // Mathematics of Computation 36 (1981), 249-253. There t^2 needs more bits than a float has: it is taken as
  // head^2 + (t - head)(t + head), head^2 exact. Below -14.5 the result is 0, and NaN at -inf, as -inf * 0 is.
  [[gnu::always_inline]] static F gelu(F x) {
    const F s = x * x;
    F middle = (-0x1.00d526p-17f * s + 0x1.dbff0ep-14f) * s - 0x1.36fd44p-10f;
    middle = ((middle * s + 0x1.46ce4ap-7f) * s - 0x1.105834p-4f) * s + 0x1.988454p-2f;

    const F distance = magnitude(x);
    const I far = distance > 14.5f;
    const F t = far ? F{} + 14.5f : distance;
    const F head = (F)((I)t & ~0xfff);
    const Exponential e = exponential(-0.5f * head * head, -0.5f * (t - head) * (t + head));
    const F inverse = 1.0f / (t + 3.0f);
    const F u = (t - 3.0f) * inverse;
    F g = (-0x1.0bf734p-10f * u + 0x1.dcbe34p-11f) * u + 0x1.c9a856p-8f;
    g = ((g * u - 0x1.563d28p-7f) * u - 0x1.833238p-5f) * u + 0x1.d71304p-3f;
    g = (g * u - 0x1.04c728p-1f) * u + 0x1.754a76p-1f;
    const F scaled = far ? F{} : g * inverse * e.power * e.scale;

    const F outer = x < 0.0f ? x * scaled * unscale : x * (1.0f - scaled * unscale);
    return distance < 1.0f ? x * (x * middle + 0.5f) : outer;
  }

  // e^x - 1 = 2^n (e^r - 1) + (2^n - 1); n is 0 near zero, where nothing cancels.
  [[gnu::always_inline]] static F elu(F x) {
    const F low = x < -30.0f ? F{} - 30.0f : x;  // keeps NaN; e^-30 - 1 is -1
    I n;
    const F r = remainder(low, whole(low, n));
    const F power = (F)((n + 127) << 23);
    const F below = power * (r * r * tail(r) + r) + (power - 1.0f);
    return x > 0.0f ? x : below;
  }

  template <F (*function)(F)>
  [[gnu::always_inline]] static void each(float* values, int64_t count) {
    for (int64_t i = 0; i < count; i += L) *(F*)(values + i) = function(*(F*)(values + i));
  }
};

// In place; `count` is a multiple of L = 4, 8 or 16, `values` aligned to 4 L bytes.
template <int L>
[[gnu::noinline]] void activate(Activation kind, float* values, int64_t count) {
  typedef Lanes<L> Is;
  switch (kind) {
    case Activation::none: return;
    case Activation::relu: return Is::template each<Is::relu>(values, count);
    case Activation::relu6: return Is::template each<Is::relu6>(values, count);
    case Activation::silu: return Is::template each<Is::silu>(values, count);
    case Activation::hardswish: return Is::template each<Is::hardswish>(values, count);
    case Activation::gelu: return Is::template each<Is::gelu>(values, count);
    case Activation::elu: return Is::template each<Is::elu>(values, count);
  }
}

}  // namespace
}  // namespace sepwise
