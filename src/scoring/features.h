// What is compared: one query, arranged for the products, and packed candidates.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace effovpr {

// Memory in whole lines of a processor's cache, each of which can be read as one vector.
template <typename Item>
class Lines {
 public:
  explicit Lines(size_t count = 0) { resize(count); }
  void resize(size_t count) { lines_.resize((count * sizeof(Item) + sizeof(Line) - 1) / sizeof(Line)); }
  Item* data() { return reinterpret_cast<Item*>(lines_.data()); }
  const Item* data() const { return reinterpret_cast<const Item*>(lines_.data()); }

 private:
  struct alignas(64) Line {
    unsigned char bytes[64];
  };
  std::vector<Line> lines_;
};

// Codes of local descriptors are integers from -7 to 7. A byte of packed codes holds two of them plus 8: an even
// component in the low half, the next one in the high half. Four bytes become two words, those of the low and of the
// high halves, each of four components. Where a descriptor ends within a word, the query has zeros.
constexpr int kOffset = 8;
constexpr int kComponents = 4;

inline int words_of(int packed_width) { return 2 * ((packed_width + kComponents - 1) / kComponents); }

// Local features of a candidate as a map stores them.
struct Candidate {
  const uint8_t* packed;    // (count, width / 2)
  const uint8_t* cells_xy;  // (count, 2)
  int count;
};

// Local features of the query. Of each word all keypoints follow each other, so that a vector holds one word of many
// keypoints. The last keypoint is repeated up to a whole number of vectors; since of equals the first is chosen,
// repetitions never are.
class Query {
 public:
  static constexpr int kMultiple = 32;

  // codes: (count, width) from -7 to 7, else std::invalid_argument; count > 0, width even. cells_xy: (count, 2).
  Query(const int8_t* codes, const uint8_t* cells_xy, int count, int width);

  const int8_t* word(int number) const { return codes_.data() + static_cast<size_t>(number) * kComponents * padded; }
  const float* inverse_norms() const { return inverse_norms_.data(); }
  // What the offset of the candidate's codes adds to each product, to be taken away.
  const int32_t* excess() const { return excess_.data(); }

  const uint8_t* const cells_xy;
  const int count;
  const int width;
  const int padded;
  const int words;

 private:
  Lines<int8_t> codes_;
  Lines<float> inverse_norms_;
  Lines<int32_t> excess_;
};

// What mutual nearest neighbours follow from, and memory that the next candidate uses again.
struct Neighbours {
  std::vector<int32_t> nearest;  // of each candidate keypoint, the first of the query's that are nearest
  std::vector<float> cosine;     // and its cosine
  Lines<float> highest;          // highest cosine of each query keypoint
  std::vector<uint32_t> words;
  std::vector<float> inverse_norms;
};

}  // namespace effovpr
