// How well candidates match a query: scores of mutual nearest neighbours (EffoVPR, section 3.2).
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace effovpr {

// Mutual matches of each of the query's keypoints.
struct Matches {
  std::vector<int32_t> candidate_index;  // -1: none
  std::vector<float> similarity;         // cosine, 0: none
};

enum class Kind { kCoherent, kCount, kWeighted, kSpatial };

struct Score {
  double score, num_matches, num_consistent, x_cells, y_cells;
};

struct Displacement {
  int16_t x, y;
};

// Compares one query with one candidate after the other; for one thread.
class Scorer {
 public:
  Scorer(const Query& query, double min_similarity, const Kernel& kernel);

  // Of equals, a keypoint of the candidate chooses the first of the query's, and of those that choose one of the
  // query's, the first is its match.
  const Matches& match(const Candidate& candidate);
  Score score(const Candidate& candidate, Kind kind);

 private:
  // Which matches agree on one displacement, and on which: the 3x3 cells of the histogram of displacements with the
  // most matches. Of equals the one with the fuller centre, then of the smaller row, then of the smaller column.
  void find_consensus(Score& result);
  // For each match, how many of those in the 5x5 around its patch moved alike, by one cell more or less.
  double coherence() const;

  const Query& query_;
  const double min_similarity_;
  const Kernel& kernel_;
  const int columns_, rows_;
  Neighbours neighbours_;
  Matches matches_;
  std::vector<int> matched_;                 // query keypoints that have a match
  std::vector<Displacement> displacements_;  // of these, query cell - candidate cell
  std::vector<Displacement> grid_;           // by query cell, with two cells around
  std::vector<int32_t> histogram_;
};

}  // namespace effovpr
