// What a next turn shares, in tokens, with what the turn before left in the cache: its prompt and
// its answer as it was sampled. The README's table is this test's output.
#include <gtest/gtest.h>

#include "engine/text/chat_encoder.h"
#include "engine/text/json_text.h"
#include "engine/text/test_data.h"

namespace cairn::engine {
namespace {

using nlohmann::ordered_json;

struct Reuse {
  size_t held, next, shared;  // tokens
  bool operator==(const Reuse&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Reuse& r) {
  return out << "held " << r.held << ", next prompt " << r.next << ", shared " << r.shared;
}

std::vector<Message> Case(int number) {
  const std::string name = "chat/case" + std::to_string(number) + ".json";
  const ordered_json json = ParseJson(TestFile(name), name).value();
  if (json.is_array()) return ParseMessages(json).value();
  return ParseMessages(json["messages"], &json["tools"]).value();
}

// After the answer messages[answer - 1] was sampled, the conversation goes on to messages[next -
// 1].
Reuse Measure(const std::vector<Message>& messages, size_t answer, size_t next,
              const ChatOptions& before, const ChatOptions& after) {
  const std::unique_ptr<Tokenizer> tokenizer = SmallTokenizer();
  const auto ids = [&](size_t count, const ChatOptions& options) {
    const PromptText prompt = EncodeChat(
        {messages.begin(), messages.begin() + static_cast<std::ptrdiff_t>(count)}, options);
    return tokenizer->Encode(prompt.text, prompt.literal).value();
  };
  const std::vector<int32_t> held = ids(answer, before), prompt = ids(next, after);
  const auto [end, unused] = std::mismatch(held.begin(), held.end(), prompt.begin(), prompt.end());
  const Reuse reuse = {held.size(), prompt.size(), static_cast<size_t>(end - held.begin())};
  std::cout << reuse << "\n";
  return reuse;
}

constexpr ChatOptions kNone = {.mode = ThinkingMode::kNone};
constexpr ChatOptions kHigh = {};
constexpr ChatOptions kHighKept = {.drop_thinking = false};
constexpr ChatOptions kMax = {.mode = ThinkingMode::kMax};

TEST(PrefixReuse, DropThinkingLosesTheLastAnswer) {
  EXPECT_EQ(Measure(Case(2), 3, 4, kHigh, kHigh), (Reuse{43, 41, 13}));
  EXPECT_EQ(Measure(Case(2), 3, 4, kHighKept, kHighKept), (Reuse{43, 59, 43}));
  EXPECT_EQ(Measure(Case(2), 3, 4, kNone, kNone), (Reuse{25, 41, 25}));
  EXPECT_EQ(Measure(Case(4), 4, 5, kHigh, kHigh), (Reuse{1285, 1298, 92}));
  EXPECT_EQ(Measure(Case(4), 4, 5, kNone, kNone), (Reuse{1284, 1298, 1284}));
}

TEST(PrefixReuse, ToolsKeepAll) {
  EXPECT_EQ(Measure(Case(1), 3, 4, kHigh, kHigh), (Reuse{577, 616, 577}));
  EXPECT_EQ(Measure(Case(3), 4, 5, kHigh, kHigh), (Reuse{1042, 1056, 1042}));
}

TEST(PrefixReuse, AnotherModeSharesOneToken) {
  EXPECT_EQ(Measure(Case(1), 3, 4, kHigh, kMax), (Reuse{577, 799, 1}));
  EXPECT_EQ(Measure(Case(1), 3, 4, kMax, kMax), (Reuse{760, 799, 760}));
  EXPECT_EQ(Measure(Case(1), 3, 4, kNone, kHigh), (Reuse{551, 616, 484}));
}

}  // namespace
}  // namespace cairn::engine
