// The Python module effovpr_ros.matching._scoring; its .pyi file says what the functions take and give.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
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

Query query_of(const Codes& codes, const Bytes& cells_xy) {
  require(codes.ndim() == 2 && codes.shape(0) > 0 && codes.shape(1) > 0 && codes.shape(1) % 2 == 0,
          "codes of the query must be (N, C) with N > 0 and C even");
  require(cells_xy.ndim() == 2 && cells_xy.shape(0) == codes.shape(0) && cells_xy.shape(1) == 2,
          "cells of the query must be (N, 2)");
  const auto is_code = [](int8_t code) { return -kOffset < code && code < kOffset; };
  require(std::all_of(codes.data(), codes.data() + codes.size(), is_code), "codes must be from -7 to 7");
  return Query(codes.data(), cells_xy.data(), codes.shape(0), codes.shape(1));
}

Candidate candidate_of(const Query& query, const Bytes& packed, const Bytes& cells_xy) {
  require(packed.ndim() == 2 && (packed.shape(0) == 0 || 2 * packed.shape(1) == query.width),
          "codes of a candidate must be (M, C / 2)");
  require(cells_xy.ndim() == 2 && cells_xy.shape(0) == packed.shape(0) && cells_xy.shape(1) == 2,
          "cells of a candidate must be (M, 2)");
  return {packed.data(), cells_xy.data(), static_cast<int>(packed.shape(0))};
}

py::array_t<double> score(const Codes& codes, const Bytes& cells_xy,
                          const std::vector<std::pair<Bytes, Bytes>>& candidates, double min_similarity,
                          const std::string& kind, const std::string& kernel) {
  const Query query = query_of(codes, cells_xy);
  std::vector<Candidate> compared;
  for (const auto& [packed, cells] : candidates) compared.push_back(candidate_of(query, packed, cells));
  const Kind wanted = kKinds.at(kind);
  Scorer scorer(query, min_similarity, kernel_named(kernel));
  py::array_t<double> table({static_cast<py::ssize_t>(compared.size()), static_cast<py::ssize_t>(5)});
  double* row = table.mutable_data();
  {
    py::gil_scoped_release unlocked;
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
  const Query query = query_of(codes, cells_xy);
  Scorer scorer(query, min_similarity, kernel_named(kernel));
  const Matches& matches = scorer.match(candidate_of(query, packed, candidate_cells_xy));
  return {py::array_t<int32_t>(query.count, matches.candidate_index.data()),
          py::array_t<float>(query.count, matches.similarity.data())};
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
