#include "score.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>

namespace effovpr {
namespace {

constexpr int kRadius = 2;
constexpr int kAround = (2 * kRadius + 1) * (2 * kRadius + 1) - 1;
constexpr int kMaxDifference = 1;
// Nothing beside it is alike: cells are below 256.
constexpr int16_t kNoMatch = 10000;

bool is_alike(const Displacement& one, const Displacement& other) {
  return (std::abs(one.x - other.x) <= kMaxDifference) & (std::abs(one.y - other.y) <= kMaxDifference);
}

int end_of(const Query& query, int axis) {
  int end = 0;
  for (int number = 0; number < query.count; number++) end = std::max(end, query.cells_xy[2 * number + axis] + 1);
  return end;
}

// ln(2 + s) for each number s of neighbours.
std::array<double, kAround + 1> worths() {
  std::array<double, kAround + 1> values;
  for (int neighbours = 0; neighbours <= kAround; neighbours++) values[neighbours] = std::log(2.0 + neighbours);
  return values;
}

}  // namespace

Scorer::Scorer(const Query& query, double min_similarity, const Kernel& kernel)
    : query_(query),
      min_similarity_(min_similarity),
      kernel_(kernel),
      columns_(end_of(query, 0) + 2 * kRadius),
      rows_(end_of(query, 1) + 2 * kRadius),
      grid_(static_cast<size_t>(columns_) * rows_, Displacement{kNoMatch, kNoMatch}) {}

const Matches& Scorer::match(const Candidate& candidate) {
  matches_.candidate_index.assign(query_.count, -1);
  matches_.similarity.assign(query_.count, 0.0f);
  if (candidate.count == 0) return matches_;
  kernel_.find_nearest(query_, candidate, neighbours_);
  // The first of equals is written last.
  for (int number = candidate.count - 1; number >= 0; number--) {
    const int chosen = neighbours_.nearest[number];
    const float cosine = neighbours_.cosine[number];
    if (cosine == neighbours_.highest.data()[chosen] && cosine > static_cast<float>(min_similarity_)) {
      matches_.candidate_index[chosen] = number;
      matches_.similarity[chosen] = cosine;
    }
  }
  return matches_;
}

Score Scorer::score(const Candidate& candidate, Kind kind) {
  match(candidate);
  matched_.clear();
  displacements_.clear();
  for (int number = 0; number < query_.count; number++) {
    const int partner = matches_.candidate_index[number];
    if (partner < 0) continue;
    const uint8_t *here = query_.cells_xy + 2 * number, *there = candidate.cells_xy + 2 * partner;
    matched_.push_back(number);
    displacements_.push_back({static_cast<int16_t>(here[0] - there[0]), static_cast<int16_t>(here[1] - there[1])});
  }
  Score result{};
  if (matched_.empty()) return result;
  result.num_matches = static_cast<double>(matched_.size());
  find_consensus(result);
  switch (kind) {
    case Kind::kCoherent:
      for (size_t one = 0; one < matched_.size(); one++) {
        const uint8_t* cell = query_.cells_xy + 2 * matched_[one];
        grid_[(cell[1] + kRadius) * columns_ + cell[0] + kRadius] = displacements_[one];
      }
      result.score = coherence() + result.num_consistent;
      for (int number : matched_) {
        const uint8_t* cell = query_.cells_xy + 2 * number;
        grid_[(cell[1] + kRadius) * columns_ + cell[0] + kRadius] = {kNoMatch, kNoMatch};
      }
      break;
    case Kind::kCount:
      result.score = result.num_matches;
      break;
    case Kind::kWeighted:
      for (int number : matched_) result.score += matches_.similarity[number] - min_similarity_;
      result.score /= 1.0 - min_similarity_;
      break;
    case Kind::kSpatial:
      result.score = result.num_consistent;
  }
  return result;
}

void Scorer::find_consensus(Score& result) {
  int left = displacements_[0].x, right = left, top = displacements_[0].y, bottom = top;
  for (const Displacement& moved : displacements_) {
    left = std::min<int>(left, moved.x), right = std::max<int>(right, moved.x);
    top = std::min<int>(top, moved.y), bottom = std::max<int>(bottom, moved.y);
  }
  // Two empty bins on each side: 3x3 bins fit around each that borders on an occupied one.
  left -= 2, top -= 2;
  const int width = right - left + 3, height = bottom - top + 3;
  histogram_.assign(static_cast<size_t>(width) * height, 0);
  for (const Displacement& moved : displacements_) histogram_[(moved.y - top) * width + moved.x - left]++;

  int most = 0, most_in_centre = 0, x = 0, y = 0;
  for (int row = 1; row < height - 1; row++) {
    for (int column = 1; column < width - 1; column++) {
      const int32_t* centre = histogram_.data() + row * width + column;
      int sum = 0;
      for (const int32_t* line : {centre - width, centre, centre + width}) sum += line[-1] + line[0] + line[1];
      if (sum > most || (sum == most && *centre > most_in_centre)) {
        most = sum, most_in_centre = *centre, x = column + left, y = row + top;
      }
    }
  }
  int total_x = 0, total_y = 0;
  for (const Displacement& moved : displacements_) {
    if (std::abs(moved.x - x) > 1 || std::abs(moved.y - y) > 1) continue;
    total_x += moved.x, total_y += moved.y;
  }
  result.num_consistent = most;
  result.x_cells = static_cast<double>(total_x) / most;
  result.y_cells = static_cast<double>(total_y) / most;
}

double Scorer::coherence() const {
  static const std::array<double, kAround + 1> worth = worths();
  double sum = 0;
  for (size_t one = 0; one < matched_.size(); one++) {
    const uint8_t* cell = query_.cells_xy + 2 * matched_[one];
    const Displacement moved = displacements_[one];
    int alike = 0;
    for (int row = 0; row <= 2 * kRadius; row++) {
      const Displacement* line = grid_.data() + (cell[1] + row) * columns_ + cell[0];
      for (int column = 0; column <= 2 * kRadius; column++) {
        alike += is_alike(line[column], moved);
      }
    }
    // What is at the match's own patch is not beside it.
    alike -= is_alike(grid_[(cell[1] + kRadius) * columns_ + cell[0] + kRadius], moved);
    sum += worth[alike];
  }
  return sum;
}

}  // namespace effovpr
