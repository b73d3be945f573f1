// Compares activation.h with float64 over float32 bit patterns, every STRIDE-th of all 2^32 (default 997).
// Built once with each instruction set's flags (see csrc/checks/run); prints the largest errors, fails above `limit`.
//
// The unit is the gap between float32 numbers at the true result, ulp; where that is subnormal, the gap of subnormals,
// or with FTZ and DAZ set the smallest normal number. That of gelu grows below zero, 1 + x^4 / 4 ulp and 1e-20 at least;
// that of gelu to bfloat16 is 2^8 ulp, a 256th of a bfloat16 gap.
#include "../separable_conv2d/activation.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <initializer_list>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

using sepwise::Activation;

namespace {

double limit(Activation kind) {
  switch (kind) {
    case Activation::silu: return 4;
    case Activation::hardswish: return 3;
    case Activation::gelu: return 5;
    case Activation::sigmoid: return 4;
    case Activation::hardsigmoid: return 3;
    default: return 1;
  }
}

double truth(Activation kind, double x) {
  switch (kind) {
    case Activation::none: return x;
    case Activation::relu: return x < 0 ? 0 : x;
    case Activation::relu6: return x < 0 ? 0 : x > 6 ? 6 : x;
    case Activation::silu: return x / (1 + exp(-x));
    case Activation::hardswish: return x * (x < -3 ? 0 : x > 3 ? 6 : x + 3) / 6;
    case Activation::gelu: return x * (0.5 * erfc(-x / sqrt(2)));
    case Activation::elu: return x > 0 ? x : expm1(x);
    case Activation::sigmoid: return 1 / (1 + exp(-x));
    case Activation::hardsigmoid: return (x < -3 ? 0 : x > 3 ? 6 : x + 3) / 6;
  }
  abort();
}

struct Worst {
  double error = 0;
  float x = 0, y = 0;
};

double gap(double t, bool flushing) {
  const double size = fabs(t);
  if (flushing && size < 0x1.01p-126) return 0x1p-126;
  int exponent;
  frexp(size, &exponent);
  return ldexp(1.0, (exponent < -125 ? -125 : exponent) - 24);
}

double unit(Activation kind, bool to_bf16, double x, double t, bool flushing) {
  const double ulp = gap(t, flushing);
  if (kind != Activation::gelu) return ulp;
  const double growing = x < 0 ? ulp * (1 + x * x * x * x / 4) : ulp;
  return fmax(to_bf16 ? fmax(growing, 256 * ulp) : growing, 1e-20);
}

void compare(Activation kind, bool to_bf16, const float* x, const float* y, int64_t count, bool flushing, Worst& worst) {
  for (int64_t i = 0; i < count; ++i) {
    const double t = truth(kind, x[i]);
    double error;
    if (isnan(t) || isinf(t) || isnan(y[i]) || isinf(y[i])) {
      error = (isnan(t) && isnan(y[i])) || (double)y[i] == t ? 0 : INFINITY;
    } else {
      error = fabs(y[i] - t) / unit(kind, to_bf16, x[i], t, flushing);
    }
    if (error > worst.error) worst = {error, x[i], y[i]};
  }
}

void flush(bool on) {
#if defined(__x86_64__)
  _mm_setcsr(on ? _mm_getcsr() | 0x8040 : _mm_getcsr() & ~0x8040u);
#elif defined(__aarch64__)
  uint64_t control;
  asm volatile("mrs %0, fpcr" : "=r"(control));
  control = on ? control | (1u << 24) : control & ~(uint64_t)(1u << 24);
  asm volatile("msr fpcr, %0" ::"r"(control));
#endif
}

template <int L, bool TO_BF16 = false>
bool sweep(Activation kind, const char* name, uint64_t stride) {
  constexpr int64_t block = 4096;
  alignas(64) static float x[block], y[block];
  Worst worst[2];
  for (uint64_t bits = 0; bits < (uint64_t)1 << 32;) {
    for (int64_t i = 0; i < block; ++i, bits += stride) {
      const uint32_t pattern = (uint32_t)bits;
      memcpy(x + i, &pattern, 4);
    }
    for (bool flushing : {false, true}) {
      memcpy(y, x, sizeof x);
      flush(flushing);
      sepwise::activate<L, TO_BF16>(kind, y, block);
      flush(false);
      compare(kind, TO_BF16, x, y, block, flushing, worst[flushing]);
    }
  }
  const float edges[] = {INFINITY, -INFINITY, NAN, -0.0f, 0.0f, 3.4028235e38f, -3.4028235e38f, 0x1p-149f};
  for (bool flushing : {false, true}) {
    for (int64_t i = 0; i < 64; ++i) x[i] = edges[i % 8];
    memcpy(y, x, 64 * 4);
    flush(flushing);
    sepwise::activate<L, TO_BF16>(kind, y, 64);
    flush(false);
    compare(kind, TO_BF16, x, y, 64, flushing, worst[flushing]);
  }
  const bool good = worst[0].error <= limit(kind) && worst[1].error <= limit(kind);
  printf("%-10s %2d lanes  %.2f ulp at %.9g -> %.9g   flushing: %.2f ulp at %.9g -> %.9g%s\n", name, L, worst[0].error,
         worst[0].x, worst[0].y, worst[1].error, worst[1].x, worst[1].y, good ? "" : "   TOO LARGE");
  return good;
}

bool runs_here() {
#if defined(__AVX512F__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#elif defined(__AVX2__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return true;
#endif
}

}  // namespace

int main(int argc, char** argv) {
  if (!runs_here()) {
    puts("skipped: this machine lacks the instructions that this program was built for");
    return 77;
  }
  const uint64_t stride = argc > 1 ? strtoull(argv[1], nullptr, 10) : 997;
  const struct {
    Activation kind;
    const char* name;
  } kinds[] = {{Activation::none, "none"},           {Activation::relu, "relu"}, {Activation::relu6, "relu6"},
               {Activation::silu, "silu"},           {Activation::gelu, "gelu"}, {Activation::elu, "elu"},
               {Activation::hardswish, "hardswish"}, {Activation::sigmoid, "sigmoid"},
               {Activation::hardsigmoid, "hardsigmoid"}};
  bool good = true;
  for (const auto& [kind, name] : kinds) {
    good &= sweep<4>(kind, name, stride);
#if defined(__AVX2__)
    good &= sweep<8>(kind, name, stride);
#endif
#if defined(__AVX512F__)
    good &= sweep<16>(kind, name, stride);
#endif
  }
  good &= sweep<4, true>(Activation::gelu, "gelu bf16", stride);
#if defined(__AVX2__)
  good &= sweep<8, true>(Activation::gelu, "gelu bf16", stride);
#endif
#if defined(__AVX512F__)
  good &= sweep<16, true>(Activation::gelu, "gelu bf16", stride);
#endif
  return good ? 0 : 1;
}
