// The activations on an array of float32, for any number of lanes: every instruction set's file compiles its own copy.
//
//     relu max(x, 0)   relu6 min(relu(x), 6)   hardswish x relu6(x + 3) / 6   elu x > 0 ? x : e^x - 1
//     silu x e^x / (1 + e^x)                   gelu x Phi(x), Phi the normal distribution function
//     sigmoid e^x / (1 + e^x)                  hardsigmoid relu6(x + 3) / 6
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

  [[gnu::always_inline]] static F hardsigmoid(F x) { return relu6(x + 3.0f) * (1.0f / 6.0f); }

  [[gnu::always_inline]] static F hardswish(F x) { return x * hardsigmoid(x); }

  // With e = e^-|x|: factor / (1 + e), times e where x < 0. Below -110 the result is 0, or NaN where the factor is -inf.
  [[gnu::always_inline]] static F logistic(F x, F factor) {
    const F distance = magnitude(x);
    const I far = distance > 110.0f;
    const Exponential e = exponential(-(far ? F{} + 110.0f : distance), F{});
    const F scaled = far ? F{} : e.power * e.scale;
    const F half = factor / (1.0f + scaled * unscale);
    return x < 0.0f ? half * scaled * unscale : half;
  }

  [[gnu::always_inline]] static F silu(F x) { return logistic(x, x); }

  [[gnu::always_inline]] static F sigmoid(F x) { return logistic(x, F{} + 1.0f); }

  // c0 + c2 s + c4 s^2 + ...
  template <class... Rest>
  [[gnu::always_inline]] static F even(F s, float c0, Rest... rest) {
    if constexpr (sizeof...(rest) < 2)
      return F{} + c0;
    else
      return even_after(s, rest...) * s + c0;
  }
  template <class... Rest>
  [[gnu::always_inline]] static F even_after(F s, float, Rest... rest) {
    return even(s, rest...);
  }

  // c0 + c1 x + c2 x^2 + ...: even and odd powers apart, because one chain of all would be waited for.
  template <class... Rest>
  [[gnu::always_inline]] static F polynomial(F x, float c0, Rest... rest) {
    const F square = x * x;
    return even(square, rest...) * x + even(square, c0, rest...);
  }

  // x Phi(x); with t = |x|, Phi(-t) = 2^(t slope(t)) / 2. To float32 the relative error grows below zero, from
  // 2 ulp at -1 to 25 at -4 and 1e-3 of the last 1e-18; to bfloat16 it is 2e-5. Beyond 9.5, where Phi(-t) is 1e-21, it counts as 0, and the
  // result is NaN at -inf, as -inf * 0 is.
  template <bool TO_BF16>
  [[gnu::always_inline]] static F gelu(F x) {
    const F distance = magnitude(x);
    const I far = distance > 9.5f;
    const F t = far ? F{} + 9.5f : distance;
    const F slope = TO_BF16 ? polynomial(t, -0x1.26b3fap+0f, -0x1.d584bap-2f, -0x1.bad408p-5f, 0x1.1b1a16p-7f,
                                         -0x1.044b84p-10f, 0x1.3dd818p-14f, -0x1.c830bap-19f, 0x1.2118e2p-24f)
                            : polynomial(t, -0x1.26aed4p+0f, -0x1.d63cd8p-2f, -0x1.ad9baep-5f, 0x1.c5bea0p-8f,
                                         0x1.9e8b00p-15f, -0x1.55f404p-12f, 0x1.a708c0p-14f, -0x1.3987c6p-16f,
                                         0x1.3c94a8p-19f, -0x1.b6e8d4p-23f, 0x1.908e38p-27f, -0x1.b19a44p-32f,
                                         0x1.a5a356p-38f);
    const F shifted = t * slope + 0x1.8p23f;  // its last bits: the exponent to the nearest integer
    const F r = t * slope - (shifted - 0x1.8p23f);
    const F power = TO_BF16 ? polynomial(r, 0x1.62e126p-1f, 0x1.ec0388p-3f, 0x1.c9ff98p-5f, 0x1.3a00f4p-7f)
                            : polynomial(r, 0x1.62e430p-1f, 0x1.ebfbdap-3f, 0x1.c6aee8p-5f, 0x1.3b2d54p-7f,
                                         0x1.5f4012p-10f, 0x1.41fa9ep-13f);
    const F half = (r * power + 1.0f) * 0.5f;
    const F lower = far ? F{} : (F)((I)half + ((I)shifted << 23));
    return x * (x < 0.0f ? lower : 1.0f - lower);
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

// In place; `count` is a multiple of L = 4, 8 or 16, `values` aligned to 4 L bytes. TO_BF16: they are rounded to bfloat16
// next, so that an error of 2e-5 is none.
template <int L, bool TO_BF16>
[[gnu::noinline]] void activate(Activation kind, float* values, int64_t count) {
  typedef Lanes<L> Is;
  switch (kind) {
    case Activation::none: return;
    case Activation::relu: return Is::template each<Is::relu>(values, count);
    case Activation::relu6: return Is::template each<Is::relu6>(values, count);
    case Activation::silu: return Is::template each<Is::silu>(values, count);
    case Activation::hardswish: return Is::template each<Is::hardswish>(values, count);
    case Activation::gelu: return Is::template each<Is::template gelu<TO_BF16>>(values, count);
    case Activation::elu: return Is::template each<Is::elu>(values, count);
    case Activation::sigmoid: return Is::template each<Is::sigmoid>(values, count);
    case Activation::hardsigmoid: return Is::template each<Is::hardsigmoid>(values, count);
  }
}

}  // namespace
}  // namespace sepwise
