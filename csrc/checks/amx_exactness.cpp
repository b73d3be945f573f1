// What only the AMX kernels promise, seen on any machine with AVX-512 BF16: where the processor has no tiles, each tile
// instruction of the kernels' own object files traps and is answered in software (tile_traps.h).
//
//     amx_exactness [CASES]    random convolutions for the comparison of errors, 1000 unless told
//
//   - float32 numbers are the sums of their parts, to the bounds that split.h states;
//   - six products are no less exact than float32 arithmetic, three are within 1e-5, and the measure bites;
//   - NaN, infinities and numbers too large for bfloat16 give what f32_avx512 gives, whatever they come from;
//   - small numbers lose what amx_split.cpp says and no more.
#include "../separable_conv2d/split.h"

#include "../cpu_features.h"
#include "problem.h"
#include "tile_traps.h"

namespace sepwise {
extern const Kernel bf16_amx, medium_amx, f32_amx_x3, f32_amx_x6, bf16_avx512_bf16, medium_avx512_bf16, f32_avx512;
}

using namespace sepwise;

namespace {

bool good = true;

void expect(bool held, const char* sentence, double got = 0, double limit = 0) {
  if (held) return;
  printf("NOT SO: %s (%.6g, limit %.6g)\n", sentence, got, limit);
  good = false;
}

// ---- parts

double sum_of(const uint16_t* parts, int count, int stride) {
  double sum = 0;
  for (int part = 0; part < count; part++) {
    const double value = from_bits((uint32_t)parts[part * stride] << 16);
    if (!(fabs(value) < 0x1p-126)) sum += value;  // smaller ones are zero to the matrix unit
  }
  return sum;
}

// What the parts of x add up to: in the first and the second half of a word of the tile, and of a word of weights.
template <int PARTS>
void add_parts(float x, double* sums) {
  float numbers[32] = {};
  numbers[5] = numbers[16 + 5] = x;
  const Sixteen::F block[2] = {Sixteen::load(numbers), Sixteen::load(numbers + 16)};
  uint16_t tile[PARTS][32], panel[PARTS][32] = {};
  SplitTile<PARTS>::template store<2>((char*)tile, block);
  SplitWeights<PARTS>::pack_number((float*)panel, 1, 0, 5, x);
  SplitWeights<PARTS>::pack_number((float*)panel, 1, 0, 16 + 5, x);
  for (int half = 0; half < 2; half++) {
    sums[half] = sum_of(&tile[0][10 + half], PARTS, 32);
    sums[2 + half] = sum_of(&panel[0][10 + half], PARTS, 32);
  }
}

template <int PARTS>
double parts_error(float x) {
  double sums[4], worst = 0;
  add_parts<PARTS>(x, sums);
  for (double sum : sums) worst = std::max(worst, fabs(sum - (double)x));
  return worst;
}

template <int PARTS>
bool parts_are_nan(float x) {
  double sums[4];
  add_parts<PARTS>(x, sums);
  return isnan(sums[0]) && isnan(sums[1]);
}

void check_parts() {
  double two = 0, exact_from = 0, lost = 0;
  for (uint64_t bits = 0x00800000; bits < 0x7f7f8000; bits += 8191) {
    const FlushSubnormals flush;
    const float x = from_bits((uint32_t)bits | (bits % 3 == 0 ? 0x80000000u : 0));
    const double size = fabs((double)x), three_parts = parts_error<3>(x), two_parts = parts_error<2>(x);
    if (three_parts > 0) exact_from = std::max(exact_from, size);
    lost = std::max(lost, three_parts);
    if (size >= 0x1p-110) two = std::max(two, two_parts / size);
  }
  printf("parts      three are exact from %.3g on and lose %.3g below it; two are within %.3g |x|\n", exact_from, lost,
         two);
  expect(exact_from < 0x1p-103, "three parts are exact from 2^-103 on", exact_from, 0x1p-103);
  expect(lost < 0x1p-126, "below, three parts lose less than 2^-126", lost, 0x1p-126);
  expect(two <= 0x1p-16, "two parts are within 2^-16 |x| from 2^-110 on", two, 0x1p-16);
  for (uint32_t bits : {0x7f800000u, 0xff800000u, 0x7f800001u, 0x7fffffffu, 0xffffffffu, 0x7fc00000u, 0x7f7f8000u})
    expect(parts_are_nan<2>(from_bits(bits)) && parts_are_nan<3>(from_bits(bits)),
           "the parts of what is not finite in bfloat16 add up to NaN", bits);
  for (uint32_t bits : {0x7f7f7fffu, 0xff7f7fffu})
    expect(parts_error<3>(from_bits(bits)) == 0, "the largest number with finite parts is exact", bits);
}

// One mid of a single power of two: y is the weight or the mid itself, bit by bit.
void check_single_products() {
  for (int round = 0; round < 40; round++) {
    Problem p = problem(between(1, 70), between(1, 40), 3, 4, 1);
    std::fill(p.depthwise.begin(), p.depthwise.end(), 1.0f);
    std::fill(p.depthwise_bias.begin(), p.depthwise_bias.end(), 0.0f);
    std::fill(p.bias.begin(), p.bias.end(), 0.0f);
    const bool one_mid = round % 2 == 0;
    const int64_t mids = p.conv.channels, outs = p.conv.out_channels;
    std::vector<int64_t> chosen(one_mid ? p.conv.out_pixels() : outs);
    if (one_mid) std::fill(p.x.begin(), p.x.end(), 0.0f);
    if (!one_mid) std::fill(p.pointwise.begin(), p.pointwise.end(), 0.0f);
    for (size_t i = 0; i < chosen.size(); i++) {
      chosen[i] = between(0, mids - 1);
      (one_mid ? p.x : p.pointwise)[i * mids + chosen[i]] = (float)ldexp(1, (int)between(-20, 20));
    }
    const Floats y = compute(f32_amx_x6, p);
    bool same = true;
    for (int64_t pixel = 0; pixel < p.conv.out_pixels(); pixel++)
      for (int64_t o = 0; o < outs; o++) {
        const int64_t q = one_mid ? chosen[pixel] : chosen[o];
        same &= y[pixel * outs + o] == p.x[pixel * mids + q] * p.pointwise[o * mids + q];
      }
    expect(same, one_mid ? "every bit of a weight is multiplied" : "every bit of a mid is multiplied");
  }
}

// ---- errors

// Errors in units of 2^-24 times the magnitudes summed.
struct Errors {
  std::vector<double> all;
  double worst_norm = 0;  // of a case: |y - truth| / |truth|
  void add(const Floats& y, const Answer& answer) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < y.size(); i++) {
      const double one = fabs((double)y[i] - answer.y[i]);
      all.push_back(answer.size[i] > 0 ? one / (answer.size[i] * 0x1p-24) : one > 0 ? INFINITY : 0);
      error += one * one, norm += answer.y[i] * answer.y[i];
    }
    if (norm > 0 && y.size() >= 64) worst_norm = std::max(worst_norm, sqrt(error / norm));
  }
  double root_mean_square() const {
    double sum = 0;
    for (double one : all) sum += one * one;
    return sqrt(sum / (double)all.size());
  }
  double quantile(double share) {
    std::sort(all.begin(), all.end());
    return all[std::min(all.size() - 1, (size_t)(share * (double)all.size()))];
  }
};

Problem random_problem() {
  const double pick = uniform();
  const int64_t channels = pick < 0.7 ? between(1, 96) : pick < 0.9 ? between(97, 300) : between(301, 1100);
  const int64_t kernels[] = {1, 3, 3, 5};
  Problem p = problem(channels, between(1, 70), between(1, 7), between(1, 8), kernels[between(0, 3)],
                      channels < 100 ? between(1, 3) : 1, between(1, 2));
  if (uniform() < 0.3) p.conv.between = Activation::relu;
  return p;
}

void check_errors(int64_t cases) {
  Errors six, single, three, medium, dropped, short_weights;
  int64_t no_worse = 0;
  for (int64_t i = 0; i < cases; i++) {
    const Problem p = random_problem();
    const Answer answer = truth(p);
    Errors six_here, single_here;
    const Floats y = compute(f32_amx_x6, p), plain = compute(f32_avx512, p);
    six.add(y, answer), six_here.add(y, answer);
    single.add(plain, answer), single_here.add(plain, answer);
    no_worse += six_here.root_mean_square() <= single_here.root_mean_square();
    three.add(compute(f32_amx_x3, p), answer);
    medium.add(compute(medium_amx, p), answer);
    if (i % 10) continue;
    Problem fault = p;
    for (int64_t o = 0; o < p.conv.out_channels; o++) fault.pointwise[(o + 1) * p.conv.mid_channels() - 1] = 0;
    dropped.add(compute(f32_amx_x6, fault), answer);
    fault = p;
    for (float& weight : fault.pointwise) {  // the third part of each weight lost
      uint32_t bits;
      memcpy(&bits, &weight, 4);
      weight = from_bits((bits + 0x40) & ~0x7fu);
    }
    short_weights.add(compute(f32_amx_x6, fault), answer);
  }
  printf("errors     of %ld cases, %zu numbers, in 2^-24 of the magnitudes summed:\n", cases, six.all.size());
  for (auto& [name, errors] : {std::pair<const char*, Errors&>{"f32_amx_x6", six}, {"f32_avx512", single}})
    printf("           %s  rms %.4f, quantiles 50 %% %.4f, 99 %% %.4f, 99.9 %% %.4f, largest %.3f; norm %.2g\n", name,
           errors.root_mean_square(), errors.quantile(0.5), errors.quantile(0.99), errors.quantile(0.999),
           errors.quantile(1), errors.worst_norm);
  printf("           f32_amx_x6 has the smaller rms in %ld; largest norm of f32_amx_x3 %.2g, of medium_amx %.2g\n",
         no_worse, three.worst_norm, medium.worst_norm);
  expect(six.root_mean_square() <= single.root_mean_square(), "six products are as exact as float32 on average",
         six.root_mean_square(), single.root_mean_square());
  for (double share : {0.5, 0.99, 0.999})
    expect(six.quantile(share) <= single.quantile(share), "and so is each quantile", six.quantile(share),
           single.quantile(share));
  expect(three.worst_norm <= 1e-5, "three products are within 1e-5", three.worst_norm, 1e-5);
  expect(medium.worst_norm <= 1e-2, "one product is within 1e-2", medium.worst_norm, 1e-2);
  expect(dropped.root_mean_square() > 1000 * single.root_mean_square(), "a dropped channel is seen",
         dropped.root_mean_square(), 1000 * single.root_mean_square());
  expect(short_weights.quantile(0.5) > 2 * single.quantile(0.5), "a lost third part is seen",
         short_weights.quantile(0.5), 2 * single.quantile(0.5));
}

// ---- what is not finite

// NaN where `other` has NaN, the same infinities, and near it elsewhere.
bool agrees(const Floats& y, const Floats& other, double tolerance) {
  for (size_t i = 0; i < y.size(); i++) {
    if (isnan(y[i]) != isnan(other[i]) || isinf(y[i]) != isinf(other[i])) return false;
    if (isinf(y[i]) ? y[i] != other[i] : fabs((double)y[i] - other[i]) > tolerance * (1 + fabs((double)other[i])))
      return false;
  }
  return true;
}

void check_not_finite() {
  const float infinity = INFINITY, nan = from_bits(0x7fc00000), full_nan = from_bits(0xffffffff);
  int64_t strange = 0, all = 0;
  for (int round = 0; round < 60; round++) {
    Problem p = problem(between(1, 80), between(1, 50), between(2, 9), between(2, 40), 3, between(1, 2));
    const Activation kinds[] = {Activation::none, Activation::relu, Activation::relu6, Activation::silu};
    p.conv.between = kinds[round % 4], p.conv.activation = kinds[round / 4 % 4];
    const float values[] = {infinity, -infinity, nan, full_nan, from_bits(0x7f800001), 3.4e38f, -3.39e38f, 3.3e38f};
    for (int64_t i = between(1, 3); i > 0; i--) p.x[draw() % p.x.size()] = values[between(0, 7)];
    host_threads = between(2, 3);
    const Floats plain = compute(f32_avx512, p);
    for (float y : plain) strange += !isfinite(y), all++;
    expect(agrees(compute(f32_amx_x6, p), plain, 1e-5), "six products give float32's NaN and infinities", round);
    expect(agrees(compute(f32_amx_x3, p), plain, 1e-3), "three products give float32's NaN and infinities", round);

    const Floats together = compute(f32_amx_x6, p);
    host_threads = 1;
    expect(agrees(compute(f32_amx_x6, p), together, 0), "numbers beside NaN do not depend on threads", round);

    for (float& x : p.x) x = fabsf(x) > 3e38f && isfinite(x) ? 1e30f : x;
    expect(agrees(compute(medium_amx, p), compute(medium_avx512_bf16, p), 0.1), "medium_amx has the same NaN", round);
    for (Floats* numbers : {&p.x, &p.depthwise, &p.depthwise_bias, &p.pointwise, &p.bias})
      for (float& number : *numbers) number = from_bits((uint32_t)bf16_of(number) << 16);
    expect(agrees(compute(bf16_amx, p), compute(bf16_avx512_bf16, p), 0.1), "bf16_amx has the same NaN", round);
  }
  expect(strange > all / 100 && strange < all, "some numbers were not finite, and some were", (double)strange,
         (double)all);

  // Sums around the largest number.
  for (float scale : {0.5e19f, 1e19f, 2e19f}) {
    Problem p = problem(40, 33, 4, 9, 1);
    for (Floats* numbers : {&p.x, &p.depthwise, &p.depthwise_bias, &p.pointwise, &p.bias})
      for (float& number : *numbers) number = fabsf(number);
    for (float& x : p.x) x *= scale;
    for (float& weight : p.pointwise) weight *= scale;
    const Floats plain = compute(f32_avx512, p);
    for (float y : plain) strange += !isfinite(y), all++;
    expect(agrees(compute(f32_amx_x6, p), plain, 1e-5), "six products overflow as float32 does", scale);
    expect(agrees(compute(f32_amx_x3, p), plain, 1e-3), "three products overflow as float32 does", scale);
  }

  for (float value : {infinity, -infinity, nan, 3.4e38f}) {
    for (int where = 0; where < 4; where++) {
      Problem p = problem(between(1, 40), between(1, 40), 5, 6);
      Floats& numbers = where == 0 ? p.depthwise : where == 1 ? p.depthwise_bias : where == 2 ? p.pointwise : p.bias;
      numbers[draw() % numbers.size()] = value;
      const Floats plain = compute(f32_avx512, p);
      for (const Kernel* kernel : {&f32_amx_x6, &f32_amx_x3}) {
        const Floats y = compute(*kernel, p);
        expect(memcmp(y.data(), plain.data(), 4 * y.size()) == 0, "weights that are not finite give float32's bits",
               where);
      }
    }
  }
  host_threads = 1;
  printf("not finite %ld of %ld numbers, all as float32 has them\n", strange, all);
}

// The shapes measured (amx_split.cpp) and where parts were chosen for them.
void check_choice() {
  const struct {
    int64_t channels, out_channels, side;
    bool pays;
  } shapes[] = {{32, 64, 112, false}, {64, 128, 56, true}, {1024, 1024, 7, true}, {1024, 1024, 6, false},
                {728, 728, 19, true}, {128, 16, 56, false}};
  for (const auto& shape : shapes) {
    const Conv conv{.batch = 1, .channels = shape.channels, .height = shape.side, .width = shape.side, .multiplier = 1,
                    .out_channels = shape.out_channels, .out_height = shape.side, .out_width = shape.side,
                    .kernel_h = 3, .kernel_w = 3, .stride_h = 1, .stride_w = 1, .dilation_h = 1, .dilation_w = 1, .pad_top = 1,
                    .pad_left = 1, .between = Activation::none, .activation = Activation::none};
    expect(f32_amx_x6.pays(conv) == shape.pays, "six products are chosen where they were faster", (double)shape.side);
  }
  expect(!bf16_amx.pays && !medium_amx.pays, "one product always pays");
}

void check_small_numbers() {
  double worst = 0;
  for (int power : {60, 90, 100, 104, 110, 118, 124}) {
    for (int where = 0; where < 2; where++) {
      Problem p = problem(between(20, 90), between(1, 40), 4, 5, 1);
      std::fill(p.depthwise_bias.begin(), p.depthwise_bias.end(), 0.0f);
      std::fill(p.bias.begin(), p.bias.end(), 0.0f);
      for (float& number : where ? p.x : p.pointwise) number = (float)ldexp(number, -power);
      const Answer answer = truth(p);
      const Floats y = compute(f32_amx_x6, p);
      for (size_t i = 0; i < y.size(); i++) {
        // Lost: less than 2^-126 of each weight and of each mid, and of each of the sums they go through.
        const double lost = 0x1p-126 * (answer.weights + answer.mids + 8 * (double)p.conv.mid_channels());
        worst = std::max(worst, fabs((double)y[i] - answer.y[i]) / (answer.size[i] * 0x1p-20 + lost));
      }
    }
  }
  printf("small      errors reach %.2f of what is stated for numbers below 2^-102\n", worst);
  expect(worst <= 1, "small numbers lose what is stated and no more", worst, 1);
}

}  // namespace

int main(int argc, char** argv) {
  if (!machine().offered.has(Isa::avx512_bf16)) {
    puts("skipped: this machine lacks AVX-512 BF16");
    return 77;
  }
  const bool tiles = machine().offered.has(Isa::amx);
  if (!tiles) tile_traps::install();
  check_choice();
  check_parts();
  check_single_products();
  check_not_finite();
  check_small_numbers();
  check_errors(argc > 1 ? atol(argv[1]) : 1000);
  if (!tiles) printf("%ld tile instructions were answered in software\n", tile_traps::answered.load());
  if (host_complaint) expect(false, host_complaint);
  return good ? 0 : 1;
}
