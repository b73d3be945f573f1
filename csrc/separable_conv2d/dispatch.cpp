#include "dispatch.h"

#include <stdexcept>

#include "../cpu_features.h"

namespace sepwise {

#define SEPWISE_KERNEL(name) extern const Kernel name;
#include "kernels.inc"

namespace {

// The reason why this kernel does not serve this call; empty when it does.
std::string why_not(const Kernel& kernel, Type type, Precision precision, bool block) {
  std::string reason = why_not(kernel);
  if (!reason.empty()) return reason;
  if (block && !kernel.knows_blocks) return "computes a depthwise and a pointwise step, and nothing around them";
  if (kernel.type != type) return std::string("computes ") + name_of(kernel.type) + ", asked for " + name_of(type);
  if (type == Type::float32 && kernel.precision > precision)
    return std::string("is of precision '") + name_of(kernel.precision) + "', asked for '" + name_of(precision) + "'";
  return "";
}

bool serves(const Kernel& kernel, Type type, Precision precision, bool block) {
  return kernel.type == type && machine().permitted.has(kernel.needs) && (kernel.knows_blocks || !block) &&
         (type != Type::float32 || kernel.precision <= precision);
}

[[noreturn]] void refuse(Type type, Precision precision, std::string_view name, bool block) {
  const std::string op = "sepwise::separable_conv2d: ";
  if (!machine().problem.empty()) throw std::runtime_error(op + machine().problem);
  std::string all;
  for (const Kernel* kernel : kernels()) {
    if (name == kernel->name)
      throw std::runtime_error(op + "kernel '" + kernel->name + "' " + why_not(*kernel, type, precision, block));
    all += std::string("\n    ") + kernel->name + " " +
           (name.empty() ? why_not(*kernel, type, precision, block) : std::string());
  }
  if (name.empty()) throw std::runtime_error(op + "no kernel can run this call" + all);
  throw std::runtime_error(op + "there is no kernel '" + std::string(name) + "'; there are" + all);
}

}  // namespace

const char* name_of(Type type) { return type == Type::float32 ? "float32" : "bfloat16"; }

const char* name_of(Precision precision) {
  return precision == Precision::highest ? "highest" : precision == Precision::high ? "high" : "medium";
}

const std::vector<const Kernel*>& kernels() {
  static const std::vector<const Kernel*> table = {
#define SEPWISE_KERNEL(name) &name,
#include "kernels.inc"
  };
  return table;
}

std::string why_not(const Kernel& kernel) {
  if (!machine().problem.empty()) return "does not run: " + machine().problem;
  if (machine().permitted.has(kernel.needs)) return "";
  const std::string needs = std::string("needs ") + name_of(kernel.needs);
  if (machine().offered.has(kernel.needs) || kernel.needs == Isa::amx)
    return needs + (machine().setting.empty() ? ", which this machine does not offer"
                                              : ", which SEPWISE_ISA=" + machine().setting + " leaves out");
  return needs + ", which this machine does not offer";
}

const Kernel& choose(const Conv& conv, Type type, Precision precision, std::string_view name, bool adds) {
  const bool block = is_block(conv, adds);
  for (const Kernel* kernel : kernels())
    if ((name.empty() ? !kernel->pays || kernel->pays(conv) : name == kernel->name) &&
        serves(*kernel, type, precision, block))
      return *kernel;
  refuse(type, precision, name, block);
}

}  // namespace sepwise
