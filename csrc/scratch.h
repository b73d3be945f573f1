// Memory of a thread, kept from call to call: what a kernel's tile lies in.
#pragma once

#include <cstddef>

namespace sepwise {

// At least `bytes`, aligned to a page; grows and never shrinks, freed when the thread ends. Contents are kept until the
// next call with this slot (0 or 1). Throws std::bad_alloc.
void* scratch(int slot, size_t bytes);

}  // namespace sepwise
