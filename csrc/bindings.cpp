// The operators `sepwise::separable_conv2d` and `fused_block`, and what may be asked about them. The only file that knows
// tensors; written against the stable ABI of LibTorch, so one library serves every PyTorch from 2.11 on. Python has
// explained what does not fit; here it is only asserted.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <atomic>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "cpu_features.h"
#include "packed_weights.h"
#include "scratch.h"
#include "separable_conv2d/dispatch.h"

namespace sepwise {
namespace {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using torch::stable::detail::from;
using torch::stable::detail::to;
using Sizes = std::vector<int64_t>;

// ---- values from and to PyTorch's stack ----

// `to<std::string>` of the header leaks.
std::string to_text(StableIValue value) {
  const auto handle = to<StringHandle>(value);
  const char* data = nullptr;
  size_t length = 0;
  torch_string_c_str(handle, &data);
  torch_string_length(handle, &length);
  std::string text(data, length);
  torch_delete_string(handle);
  return text;
}

// Empty for None.
std::string to_optional_text(StableIValue value) {
  const std::unique_ptr<StableIValue> inner(to<StableIValue*>(value));
  return inner == nullptr ? std::string() : to_text(*inner);
}

template <size_t N>
int64_t position(const char* argument, const std::string& name, const std::array<const char*, N>& names) {
  for (size_t i = 0; i < N; i++)
    if (name == names[i]) return static_cast<int64_t>(i);
  STD_TORCH_CHECK(false, "sepwise::separable_conv2d: ", argument, "='", name, "' is unknown");
}

Activation to_activation(const char* argument, const std::string& name) {
  constexpr std::array names = {"", "relu", "relu6", "silu", "hardswish", "gelu", "elu"};
  return static_cast<Activation>(position(argument, name, names));
}

Precision to_precision(const std::string& name) {
  constexpr std::array names = {"highest", "high", "medium"};
  return static_cast<Precision>(position("precision", name, names));
}

// ---- what a kernel needs of its host ----

// Within a parallel region PyTorch runs all jobs on this thread.
void parallel(int64_t jobs, void (*job)(void*, int64_t), void* context) {
  if (jobs == 1) return job(context, 0);
  std::atomic<bool> out_of_memory = false;
  torch::stable::parallel_for(0, jobs, 1, [&](int64_t begin, int64_t end) {
    try {
      for (int64_t index = begin; index < end; index++) job(context, index);
    } catch (const std::bad_alloc&) {  // an error in here would arrive without its text
      out_of_memory = true;
    }
  });
  if (out_of_memory) throw std::bad_alloc();
}

// ---- the call ----

struct Arguments {
  Tensor x, pointwise;
  std::optional<Tensor> depthwise, bias, depthwise_bias, expand, expand_bias, residual;
  Activation between, activation, widening = Activation::none;
  std::optional<double> epsilon;    // of the normalization, where there is one
  Sizes stride, padding, dilation;  // (vertical, horizontal); padding (top, left, bottom, right)
  Precision precision;
  std::string kernel_name;  // empty: the first that can

  Arguments(Tensor&& x, Tensor&& pointwise) : x(std::move(x)), pointwise(std::move(pointwise)) {}
};

void take_biases(Arguments& a, StableIValue* stack) {
  a.bias = to<std::optional<Tensor>>(stack[0]);
  a.depthwise_bias = to<std::optional<Tensor>>(stack[1]);
}

// What both operators end with; returns the word of the precision.
std::string take_rest(Arguments& a, StableIValue* stack) {
  a.stride = to<Sizes>(stack[0]);
  a.padding = to<Sizes>(stack[1]);
  a.dilation = to<Sizes>(stack[2]);
  const std::string precision = to_text(stack[3]);
  a.kernel_name = to_optional_text(stack[4]);
  return precision;
}

// Both take everything from the stack before they look at a word of it.
Arguments pair_from(StableIValue* stack) {
  Arguments a(to<Tensor>(stack[0]), to<Tensor>(stack[2]));
  a.depthwise = to<Tensor>(stack[1]);
  take_biases(a, stack + 3);
  const std::string between = to_optional_text(stack[5]), activation = to_optional_text(stack[6]);
  const std::string precision = take_rest(a, stack + 7);
  a.between = to_activation("between", between);
  a.activation = to_activation("activation", activation);
  a.precision = to_precision(precision);
  return a;
}

Arguments block_from(StableIValue* stack) {
  Arguments a(to<Tensor>(stack[0]), to<Tensor>(stack[2]));
  a.depthwise = to<std::optional<Tensor>>(stack[1]);
  take_biases(a, stack + 3);
  a.expand = to<std::optional<Tensor>>(stack[5]);
  a.expand_bias = to<std::optional<Tensor>>(stack[6]);
  a.residual = to<std::optional<Tensor>>(stack[7]);
  const std::string widening = to_optional_text(stack[8]), between = to_optional_text(stack[9]);
  a.epsilon = to<std::optional<double>>(stack[10]);
  const std::string activation = to_optional_text(stack[11]), precision = take_rest(a, stack + 12);
  a.widening = to_activation("widening", widening);
  a.between = to_activation("between", between);
  a.activation = to_activation("activation", activation);
  a.precision = to_precision(precision);
  return a;
}

// Not `kernel`: Inductor has an argument of that name.
const std::string pair_arguments =
    "(Tensor x, Tensor depthwise, Tensor pointwise, Tensor? bias, Tensor? depthwise_bias, str? between, "
    "str? activation, int[2] stride, SymInt[4] padding, int[2] dilation, str precision, str? kernel_name=None)";
const std::string block_arguments =
    "(Tensor x, Tensor? depthwise, Tensor pointwise, Tensor? bias, Tensor? depthwise_bias, Tensor? expand, "
    "Tensor? expand_bias, Tensor? residual, str? widening, str? between, float? epsilon, str? activation, "
    "int[2] stride, SymInt[4] padding, int[2] dilation, str precision, str? kernel_name=None)";

int64_t extent(int64_t size, int64_t before, int64_t after, int64_t kernel, int64_t stride, int64_t dilation) {
  const int64_t room = size + before + after - dilation * (kernel - 1) - 1;
  STD_TORCH_CHECK(room >= 0, "sepwise::separable_conv2d: the output would be empty");
  return room / stride + 1;
}

Conv conv_of(const Arguments& a) {
  STD_TORCH_CHECK(a.x.dim() == 4 && (!a.depthwise || a.depthwise->dim() == 4) && a.pointwise.dim() == 4 &&
                      (!a.expand || a.expand->dim() == 4) && a.stride.size() == 2 && a.padding.size() == 4 &&
                      a.dilation.size() == 2,
                  "sepwise::separable_conv2d: tensors need four axes, padding four numbers, stride and dilation two");
  const auto x = a.x.sizes(), pointwise = a.pointwise.sizes();
  for (int64_t size : {x[1], x[2], x[3], pointwise[0], pointwise[1], a.stride[0], a.stride[1], a.dilation[0],
                       a.dilation[1]})
    STD_TORCH_CHECK(size >= 1, "sepwise::separable_conv2d: sizes, stride and dilation start at 1");
  for (int64_t pad : a.padding) STD_TORCH_CHECK(pad >= 0, "sepwise::separable_conv2d: padding starts at 0");
  Conv conv{};
  conv.batch = x[0], conv.channels = x[1], conv.height = x[2], conv.width = x[3];
  conv.multiplier = 1, conv.out_channels = pointwise[0];
  if (a.expand) {
    const auto expand = a.expand->sizes();
    STD_TORCH_CHECK(a.depthwise && expand[0] >= 1 && expand[1] == x[1] && expand[2] == 1 && expand[3] == 1,
                    "sepwise::fused_block: expand must be (E, C, 1, 1), and a depthwise step must follow it");
    conv.expanded = x[1], conv.channels = expand[0];
  }
  if (a.depthwise) {
    const auto depthwise = a.depthwise->sizes();
    STD_TORCH_CHECK(depthwise[0] >= 1 && depthwise[2] >= 1 && depthwise[3] >= 1 && depthwise[0] % conv.channels == 0 &&
                        depthwise[1] == 1,
                    "sepwise::separable_conv2d: depthwise must be (C * multiplier, 1, KH, KW)");
    conv.multiplier = depthwise[0] / conv.channels;
    conv.kernel_h = depthwise[2], conv.kernel_w = depthwise[3];
    STD_TORCH_CHECK(pointwise[1] == conv.mid_channels() && pointwise[2] == 1 && pointwise[3] == 1,
                    "sepwise::separable_conv2d: pointwise must be (O, C * multiplier, 1, 1)");
  } else {
    const bool moves = a.stride != Sizes({1, 1}) || a.padding != Sizes({0, 0, 0, 0});
    conv.gathered = pointwise[2] > 1 || pointwise[3] > 1 || moves;
    if (conv.gathered) conv.kernel_h = pointwise[2], conv.kernel_w = pointwise[3];
    STD_TORCH_CHECK(!a.depthwise_bias && a.between == Activation::none,
                    "sepwise::fused_block: without a depthwise step there is nothing to be activated after it");
    STD_TORCH_CHECK(pointwise[1] == x[1] && pointwise[2] >= 1 && pointwise[3] >= 1,
                    "sepwise::fused_block: without a depthwise step, pointwise must be (O, C, KH, KW)");
  }
  const int64_t mids = a.depthwise ? conv.mid_channels() : 0, wides = a.expand ? conv.channels : 0;
  for (const auto& [bias, length] :
       {std::pair{&a.bias, pointwise[0]}, std::pair{&a.depthwise_bias, mids}, std::pair{&a.expand_bias, wides}})
    STD_TORCH_CHECK(!*bias || ((*bias)->dim() == 1 && (*bias)->size(0) == length),
                    "sepwise::separable_conv2d: a bias must hold one number for each channel");
  conv.stride_h = a.stride[0], conv.stride_w = a.stride[1];
  conv.dilation_h = a.dilation[0], conv.dilation_w = a.dilation[1];
  conv.pad_top = a.padding[0], conv.pad_left = a.padding[1];
  const int64_t kernel_h = conv.kernel_h ? conv.kernel_h : 1, kernel_w = conv.kernel_w ? conv.kernel_w : 1;
  conv.out_height = extent(x[2], a.padding[0], a.padding[2], kernel_h, conv.stride_h, conv.dilation_h);
  conv.out_width = extent(x[3], a.padding[1], a.padding[3], kernel_w, conv.stride_w, conv.dilation_w);
  conv.between = a.between, conv.activation = a.activation, conv.widening = a.widening;
  conv.normalized = a.epsilon.has_value(), conv.epsilon = static_cast<float>(a.epsilon.value_or(0));
  STD_TORCH_CHECK(!(conv.normalized && conv.gathered), "sepwise::fused_block: patches of a kernel are not normalized");
  if (a.residual) {
    const auto sizes = a.residual->sizes();
    STD_TORCH_CHECK(a.residual->dim() == 4 && sizes[0] == conv.batch && sizes[1] == conv.out_channels &&
                        sizes[2] == conv.out_height && sizes[3] == conv.out_width &&
                        a.residual->scalar_type() == a.x.scalar_type(),
                    "sepwise::fused_block: the residual must have the size and dtype of the result");
  }
  return conv;
}

Type type_of(const Tensor& x) {
  const ScalarType type = x.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::BFloat16,
                  "sepwise::separable_conv2d: x must be float32 or bfloat16");
  return type == ScalarType::Float ? Type::float32 : Type::bfloat16;
}

// Whether the numbers lie as in (batch, height, width, channels); axes of one element lie anywhere.
bool is_channels_last(const Tensor& x) {
  const auto sizes = x.sizes(), strides = x.strides();
  int64_t expected = 1;
  for (int axis : {1, 3, 2, 0}) {
    if (sizes[axis] != 1 && strides[axis] != expected) return false;
    expected *= sizes[axis];
  }
  return true;
}

// ---- weights ----

// A value in `what` asked of PyTorch's dispatcher.
template <class T>
T ask(const char* what, const Tensor& tensor) {
  std::array<StableIValue, 1> stack{from(tensor)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(what, "", stack.data(), TORCH_ABI_VERSION));
  return to<T>(stack[0]);
}

Source source_of(const std::optional<Tensor>& tensor, bool& may_keep) {
  Source source;
  if (!tensor) return source;
  const auto sizes = tensor->sizes(), strides = tensor->strides();
  int64_t last = 0;
  for (size_t axis = 0; axis < sizes.size(); axis++) {
    last += (sizes[axis] - 1) * strides[axis];
    source.strides[axis] = strides[axis];
  }
  source.data = tensor->const_data_ptr();
  source.bytes = (last + 1) * static_cast<int64_t>(tensor->element_size());
  source.type = static_cast<int64_t>(tensor->scalar_type());
  if (source.bytes <= compared_whole) return source;
  if (ask<bool>("aten::is_inference", *tensor))
    may_keep = false;  // tensors made in inference mode do not count their changes
  else
    source.version = ask<int64_t>("aten::_version", *tensor);
  return source;
}

// A second tensor on the same memory: what is done to the first, a new `.data` for instance, does not free that.
Tensor alias(const Tensor& tensor) {
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch__reinterpret_tensor(tensor.get(), tensor.dim(), tensor.sizes().data(),
                                                               tensor.strides().data(), tensor.storage_offset(),
                                                               &handle));
  return Tensor(handle);
}

std::shared_ptr<const PackedWeights> packed(const Arguments& a, const Conv& conv, const Kernel& kernel) {
  const std::array<std::optional<Tensor>, 6> weights = {a.depthwise, a.depthwise_bias, a.pointwise,
                                                        a.bias,      a.expand,         a.expand_bias};
  PackRequest request{&kernel, &conv, {}, true};
  for (size_t i = 0; i < weights.size(); i++) request.sources[i] = source_of(weights[i], request.may_keep);

  const auto pack = [&](void* memory) {
    std::array<std::optional<Tensor>, 6> plain = weights;
    std::array<const void*, 6> data{};
    for (size_t i = 0; i < weights.size(); i++) {
      if (!plain[i]) continue;
      plain[i] = torch::stable::contiguous(torch::stable::to(*plain[i], a.x.scalar_type()));
      data[i] = plain[i]->const_data_ptr();
    }
    kernel.pack(conv, Weights{data[0], data[1], data[2], data[3], data[4], data[5]}, memory);
  };
  const auto hold = [&]() -> std::shared_ptr<void> {
    auto held = std::make_shared<std::vector<Tensor>>();
    for (const auto& weight : weights)
      if (weight) held->push_back(alias(*weight));
    return held;
  };
  return packed_weights(request, pack, hold);
}

// ---- operators ----

Tensor laid_out(const Tensor& x) {
  return is_channels_last(x) ? x : torch::stable::contiguous(x, MemoryFormat::ChannelsLast);
}

Tensor compute(const Arguments& a) {
  const Conv conv = conv_of(a);
  const Kernel& kernel = choose(conv, type_of(a.x), a.precision, a.kernel_name, a.residual.has_value());
  const std::array size = {conv.batch, conv.out_channels, conv.out_height, conv.out_width};
  const Tensor y = torch::stable::empty({size.data(), size.size()}, a.x.scalar_type(), std::nullopt, a.x.device(),
                                        std::nullopt, MemoryFormat::ChannelsLast);
  if (conv.batch == 0) return y;
  const Tensor x = laid_out(a.x);
  const std::optional<Tensor> residual = a.residual ? std::optional(laid_out(*a.residual)) : std::nullopt;
  const auto weights = packed(a, conv, kernel);
  const Host host{parallel, torch::stable::get_num_threads(), scratch};
  kernel.run(Task{conv, weights->data(), x.const_data_ptr(), y.mutable_data_ptr(), host,
                  residual ? residual->const_data_ptr() : nullptr});
  return y;
}

void separable_conv2d(StableIValue* stack, uint64_t, uint64_t) { stack[0] = from(compute(pair_from(stack))); }
void fused_block(StableIValue* stack, uint64_t, uint64_t) { stack[0] = from(compute(block_from(stack))); }

// The name of the kernel that would run.
void kernel_for(StableIValue* stack, uint64_t, uint64_t) {
  const Arguments a = pair_from(stack);
  stack[0] = from(std::string(choose(conv_of(a), type_of(a.x), a.precision, a.kernel_name).name));
}

// Each kernel as name, instruction set, type, precision and why this machine does not run it, between tabs.
std::vector<std::string> list_kernels() {
  std::vector<std::string> list;
  for (const Kernel* kernel : kernels())
    list.push_back(std::string(kernel->name) + "\t" + name_of(kernel->needs) + "\t" + name_of(kernel->type) + "\t" +
                   name_of(kernel->precision) + "\t" + why_not(*kernel));
  return list;
}

// What is wrong with SEPWISE_ISA, or nothing; SEPWISE_ISA; the instruction sets that the machine offers.
std::vector<std::string> describe_machine() {
  std::vector<std::string> list = {machine().problem, machine().setting};
  for (Isa isa : {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx})
    if (machine().offered.has(isa)) list.emplace_back(name_of(isa));
  return list;
}

std::vector<int64_t> count_packed_weights() {
  const PackStatistics now = pack_statistics();
  return {now.kept, now.bytes, now.packed, now.reused};
}

}  // namespace
}  // namespace sepwise

STABLE_TORCH_LIBRARY(sepwise, m) {
  m.def(("separable_conv2d" + sepwise::pair_arguments + " -> Tensor").c_str());
  m.def(("fused_block" + sepwise::block_arguments + " -> Tensor").c_str());
  m.def(("kernel_for" + sepwise::pair_arguments + " -> str").c_str());
  m.def("kernels() -> str[]");
  m.def("machine() -> str[]");
  m.def("packed_weights() -> int[]");
  m.def("forget_packed_weights(int idle_seconds) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(sepwise, CPU, m) {
  m.impl("separable_conv2d", &sepwise::separable_conv2d);
  m.impl("fused_block", &sepwise::fused_block);
  m.impl("kernel_for", &sepwise::kernel_for);
}

STABLE_TORCH_LIBRARY_IMPL(sepwise, CompositeExplicitAutograd, m) {
  m.impl("kernels", TORCH_BOX(&sepwise::list_kernels));
  m.impl("machine", TORCH_BOX(&sepwise::describe_machine));
  m.impl("packed_weights", TORCH_BOX(&sepwise::count_packed_weights));
  m.impl("forget_packed_weights", TORCH_BOX(&sepwise::forget_packed_weights));
}
