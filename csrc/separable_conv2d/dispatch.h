// Which kernel computes a convolution: the first of kernels.inc that may, or the reasons why none does.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernel.h"

namespace sepwise {

const char* name_of(Type type);
const char* name_of(Precision precision);

// All kernels compiled into this library, the preferred first.
const std::vector<const Kernel*>& kernels();

// Why this machine, as SEPWISE_ISA leaves it, does not run the kernel; empty when it does.
std::string why_not(const Kernel& kernel);

// The first permitted kernel of this type that is at least as precise as asked, knows the steps of `conv` (`adds`: a
// residual, too) and pays for it.
// `name` not empty: that kernel and no other. Every kernel of bfloat16 is as precise as any asked: precision speaks of float32.
// Throws std::runtime_error with a sentence when there is none.
const Kernel& choose(const Conv& conv, Type type, Precision precision, std::string_view name, bool adds = false);

}  // namespace sepwise
