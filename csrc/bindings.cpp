// The operators `sepwise::separable_conv2d` and `fused_block`, and what may be asked about them.
#include <torch/csrc/stable/library.h>

#include "cpu_features.h"
#include "layer.h"

namespace sepwise {
namespace {

using torch::headeronly::MemoryFormat;
using torch::stable::detail::from;
using torch::stable::detail::to;

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
  constexpr std::array names = {"",     "relu", "relu6",   "silu",       "hardswish",
                                "gelu", "elu",  "sigmoid", "hardsigmoid"};
  return static_cast<Activation>(position(argument, name, names));
}

Precision to_precision(const std::string& name) {
  constexpr std::array names = {"highest", "high", "medium"};
  return static_cast<Precision>(position("precision", name, names));
}

// ---- the calls ----

struct Call {
  Layer layer;
  Tensor x;
  std::optional<Tensor> residual;

  Call(Tensor&& x, Tensor&& pointwise) : x(std::move(x)) { layer.pointwise = std::move(pointwise); }
};

void take_biases(Layer& a, StableIValue* stack) {
  a.bias = to<std::optional<Tensor>>(stack[0]);
  a.depthwise_bias = to<std::optional<Tensor>>(stack[1]);
}

// What both operators end with; returns the word of the precision.
std::string take_rest(Layer& a, StableIValue* stack) {
  a.stride = to<Sizes>(stack[0]);
  a.padding = to<Sizes>(stack[1]);
  a.dilation = to<Sizes>(stack[2]);
  const std::string precision = to_text(stack[3]);
  a.kernel_name = to_optional_text(stack[4]);
  return precision;
}

// Both take everything from the stack before they look at a word of it.
Call pair_from(StableIValue* stack) {
  Call call(to<Tensor>(stack[0]), to<Tensor>(stack[2]));
  Layer& a = call.layer;
  a.depthwise = to<Tensor>(stack[1]);
  take_biases(a, stack + 3);
  const std::string between = to_optional_text(stack[5]), activation = to_optional_text(stack[6]);
  const std::string precision = take_rest(a, stack + 7);
  a.between = to_activation("between", between);
  a.activation = to_activation("activation", activation);
  a.precision = to_precision(precision);
  return call;
}

Call block_from(StableIValue* stack) {
  Call call(to<Tensor>(stack[0]), to<Tensor>(stack[2]));
  Layer& a = call.layer;
  a.depthwise = to<std::optional<Tensor>>(stack[1]);
  take_biases(a, stack + 3);
  a.expand = to<std::optional<Tensor>>(stack[5]);
  a.expand_bias = to<std::optional<Tensor>>(stack[6]);
  STD_TORCH_CHECK(!a.expand || (a.depthwise && a.expand->dim() == 4 && a.expand->size(2) == 1 && a.expand->size(3) == 1),
                  "sepwise::fused_block: expand must be (E, C, 1, 1), and a depthwise step must follow it");
  call.residual = to<std::optional<Tensor>>(stack[7]);
  const std::string widening = to_optional_text(stack[8]), between = to_optional_text(stack[9]);
  a.epsilon = to<std::optional<double>>(stack[10]);
  const std::string activation = to_optional_text(stack[11]), precision = take_rest(a, stack + 12);
  a.widening = to_activation("widening", widening);
  a.between = to_activation("between", between);
  a.activation = to_activation("activation", activation);
  a.precision = to_precision(precision);
  return call;
}

// Not `kernel`: Inductor has an argument of that name.
const std::string pair_arguments =
    "(Tensor x, Tensor depthwise, Tensor pointwise, Tensor? bias, Tensor? depthwise_bias, str? between, "
    "str? activation, int[2] stride, SymInt[4] padding, int[2] dilation, str precision, str? kernel_name=None)";
const std::string block_arguments =
    "(Tensor x, Tensor? depthwise, Tensor pointwise, Tensor? bias, Tensor? depthwise_bias, Tensor? expand, "
    "Tensor? expand_bias, Tensor? residual, str? widening, str? between, float? epsilon, str? activation, "
    "int[2] stride, SymInt[4] padding, int[2] dilation, str precision, str? kernel_name=None)";

// ---- operators ----

Size size_of(const Tensor& x) {
  STD_TORCH_CHECK(x.dim() == 4, "sepwise::separable_conv2d: x needs four axes");
  return {x.size(0), x.size(1), x.size(2), x.size(3)};
}

Tensor compute(const Call& call) {
  const ScalarType type = call.x.scalar_type();
  const Conv conv = conv_of(call.layer, size_of(call.x));
  const Size size = {conv.batch, conv.out_channels, conv.out_height, conv.out_width};
  STD_TORCH_CHECK(!call.residual || (size_of(*call.residual) == size && call.residual->scalar_type() == type),
                  "sepwise::fused_block: the residual must have the size and dtype of the result");
  const Kernel& kernel =
      choose(conv, type_of(type), call.layer.precision, call.layer.kernel_name, call.residual.has_value());
  const Tensor y = torch::stable::empty({size.data(), size.size()}, type, std::nullopt, call.x.device(), std::nullopt,
                                        MemoryFormat::ChannelsLast);
  if (conv.batch == 0) return y;
  const Tensor x = laid_out(call.x);
  const std::optional<Tensor> residual = call.residual ? std::optional(laid_out(*call.residual)) : std::nullopt;
  const auto weights = packed(call.layer, type, conv, kernel);
  kernel.run(Task{conv, weights->data(), x.const_data_ptr(), y.mutable_data_ptr(), host(),
                  residual ? residual->const_data_ptr() : nullptr});
  return y;
}

void separable_conv2d(StableIValue* stack, uint64_t, uint64_t) { stack[0] = from(compute(pair_from(stack))); }
void fused_block(StableIValue* stack, uint64_t, uint64_t) { stack[0] = from(compute(block_from(stack))); }

// The name of the kernel that would run.
void kernel_for(StableIValue* stack, uint64_t, uint64_t) {
  const Call call = pair_from(stack);
  const Conv conv = conv_of(call.layer, size_of(call.x));
  const Type type = type_of(call.x.scalar_type());
  stack[0] = from(std::string(choose(conv, type, call.layer.precision, call.layer.kernel_name).name));
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
