#include "features.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace effovpr {

Query::Query(const int8_t* codes, const uint8_t* cells, int num_keypoints, int num_components)
    : cells_xy(cells),
      count(num_keypoints),
      width(num_components),
      padded((num_keypoints + kMultiple - 1) / kMultiple * kMultiple),
      words(words_of(num_components / 2)),
      codes_(static_cast<size_t>(padded) * words * kComponents),
      inverse_norms_(padded),
      excess_(padded) {
  for (int number = 0; number < padded; number++) {
    const int8_t* row = codes + static_cast<size_t>(number < count ? number : count - 1) * width;
    int sum = 0, squares = 0, smallest = 0, largest = 0;
    for (int component = 0; component < width; component++) {
      // Of eight components the even ones are in the word of the low halves.
      const int word = component / 8 * 2 + component % 2;
      codes_.data()[(static_cast<size_t>(word) * padded + number) * kComponents + component % 8 / 2] = row[component];
      sum += row[component];
      squares += row[component] * row[component];
      smallest = std::min<int>(smallest, row[component]), largest = std::max<int>(largest, row[component]);
    }
    if (smallest <= -kOffset || largest >= kOffset) throw std::invalid_argument("codes must be from -7 to 7");
    excess_.data()[number] = kOffset * sum;
    inverse_norms_.data()[number] = squares ? static_cast<float>(1.0 / std::sqrt(static_cast<double>(squares))) : 0.0f;
  }
}

}  // namespace effovpr
