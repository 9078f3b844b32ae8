// Nearest neighbours of keypoints, by the fastest instructions that the processor has.
#pragma once

#include <vector>

#include "features.h"

namespace effovpr {

struct Kernel {
  const char* name;
  bool (*is_supported)();
  void (*find_nearest)(const Query&, const Candidate&, Neighbours&);
};

// Those that this processor can run, the fastest first. All give the same numbers: products are exact, and each cosine
// is rounded alike.
const std::vector<Kernel>& kernels();

}  // namespace effovpr
