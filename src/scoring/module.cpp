// The Python module effovpr_ros.matching._scoring; its .pyi file says what the functions take and give.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <stdexcept>

#include "score.h"

namespace py = pybind11;

namespace effovpr {
namespace {

using Codes = py::array_t<int8_t, py::array::c_style>;
using Bytes = py::array_t<uint8_t, py::array::c_style>;

const std::map<std::string, Kind> kKinds = {
    {"coherent", Kind::kCoherent}, {"count", Kind::kCount}, {"weighted", Kind::kWeighted}, {"spatial", Kind::kSpatial}};

const Kernel& kernel_named(const std::string& name) {
  for (const Kernel& kernel : kernels()) {
    if (kernel.name == name) return kernel;
  }
  throw std::invalid_argument("no kernel " + name + " here; see kernels()");
}

void require(bool is_true, const char* what) {
  if (!is_true) throw std::invalid_argument(what);
}

Kind kind_named(const std::string& name) {
  const auto found = kKinds.find(name);
  require(found != kKinds.end(), "no such score");
  return found->second;
}

// Patches have two numbers below 256.
bool is_number_of_keypoints(py::ssize_t count) { return count <= 65536; }

void require_query(const Codes& codes, const Bytes& cells_xy, double min_similarity) {
  require(codes.ndim() == 2 && codes.shape(0) > 0 && codes.shape(1) > 0 && codes.shape(1) % 2 == 0 &&
              is_number_of_keypoints(codes.shape(0)) && codes.shape(1) <= 65536,
          "codes of the query must be (N, C) with N > 0 and C even");
  require(cells_xy.ndim() == 2 && cells_xy.shape(0) == codes.shape(0) && cells_xy.shape(1) == 2,
          "cells of the query must be (N, 2)");
  require(min_similarity >= -1.0 && min_similarity < 1.0, "min_similarity must be in [-1, 1)");
}

Query query_of(const Codes& codes, const Bytes& cells_xy) {
  return Query(codes.data(), cells_xy.data(), static_cast<int>(codes.shape(0)), static_cast<int>(codes.shape(1)));
}

Candidate candidate_of(const Codes& codes, const Bytes& packed, const Bytes& cells_xy) {
  require(packed.ndim() == 2 && (packed.shape(0) == 0 || 2 * packed.shape(1) == codes.shape(1)) &&
              is_number_of_keypoints(packed.shape(0)),
          "codes of a candidate must be (M, C / 2)");
  require(cells_xy.ndim() == 2 && cells_xy.shape(0) == packed.shape(0) && cells_xy.shape(1) == 2,
          "cells of a candidate must be (M, 2)");
  return {packed.data(), cells_xy.data(), static_cast<int>(packed.shape(0))};
}

py::array_t<double> score(const Codes& codes, const Bytes& cells_xy,
                          const std::vector<std::pair<Bytes, Bytes>>& candidates, double min_similarity,
                          const std::string& kind, const std::string& kernel) {
  require_query(codes, cells_xy, min_similarity);
  std::vector<Candidate> compared;
  for (const auto& [packed, cells] : candidates) compared.push_back(candidate_of(codes, packed, cells));
  const Kind wanted = kind_named(kind);
  const Kernel& chosen = kernel_named(kernel);
  py::array_t<double> table(
      py::array::ShapeContainer({static_cast<py::ssize_t>(compared.size()), static_cast<py::ssize_t>(5)}));
  double* row = table.mutable_data();
  {
    py::gil_scoped_release unlocked;
    const Query query = query_of(codes, cells_xy);
    Scorer scorer(query, min_similarity, chosen);
    for (const Candidate& candidate : compared) {
      const Score found = scorer.score(candidate, wanted);
      for (double value : {found.score, found.num_matches, found.num_consistent, found.x_cells, found.y_cells}) {
        *row++ = value;
      }
    }
  }
  return table;
}

std::pair<py::array_t<int32_t>, py::array_t<float>> match(const Codes& codes, const Bytes& cells_xy,
                                                          const Bytes& packed, const Bytes& candidate_cells_xy,
                                                          double min_similarity, const std::string& kernel) {
  require_query(codes, cells_xy, min_similarity);
  const Candidate candidate = candidate_of(codes, packed, candidate_cells_xy);
  const Kernel& chosen = kernel_named(kernel);
  Matches matches;
  {
    py::gil_scoped_release unlocked;
    const Query query = query_of(codes, cells_xy);
    matches = Scorer(query, min_similarity, chosen).match(candidate);
  }
  // With a plain count, pybind11 before 2.12 takes the size of an item from where NumPy 2 no longer has it.
  const py::array::ShapeContainer shape{codes.shape(0)};
  return {py::array_t<int32_t>(shape, matches.candidate_index.data()),
          py::array_t<float>(shape, matches.similarity.data())};
}

std::vector<std::string> kernel_names() {
  std::vector<std::string> names;
  for (const Kernel& kernel : kernels()) names.emplace_back(kernel.name);
  return names;
}

}  // namespace

PYBIND11_MODULE(_scoring, module) {
  module.def("score", &score);
  module.def("match", &match);
  module.def("kernels", &kernel_names);
}

}  // namespace effovpr
