// Reads against the mapping, of tensors that begin anywhere in the file, and every way in which the
// file can have become another since it was opened: a Status, never other bytes and never a signal.
#include "engine/model/tensor_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>

#include "engine/model/test_files.h"
#include "store/device/faulty_file_system.h"
#include "store/device/uring_file_system.h"

namespace cairn::engine {
namespace {

using Bytes = TensorReader::Bytes;
using ::testing::HasSubstr;

class TensorReaderTest : public ::testing::Test {
 protected:
  TensorReaderTest() {
    std::mt19937 random(3);
    // Over and under an I/O unit and a piece, none of them a multiple of anything.
    for (const int64_t size : {1, 4095, 4097, 5, 900'001}) {
      std::vector<uint8_t>& values = values_.emplace_back(static_cast<size_t>(size));
      for (uint8_t& value : values) value = static_cast<uint8_t>(random());
      tensors_.push_back({"t" + std::to_string(size), {DType::kU8, {size}, values}});
    }
    Write();
    auto opened = TensorFile::Open(path_);
    EXPECT_TRUE(opened.ok()) << opened.status();
    file_ = *std::move(opened);
    auto reader = TensorReader::Open(faulty_, file_);
    EXPECT_TRUE(reader.ok()) << reader.status();
    reader_ = *std::move(reader);
  }

  void Write() { ASSERT_TRUE(WriteTensors(path_, tensors_).ok()); }

  absl::Status ReadAll(std::vector<Bytes>* copies = nullptr) {
    std::vector<Bytes> wanted;
    for (const NamedTensor& tensor : tensors_) wanted.push_back(file_->Get(tensor.name)->bytes);
    CAIRN_ASSIGN_OR_RETURN(const std::vector<Bytes> found, reader_->Read(wanted, room_));
    if (copies != nullptr) *copies = found;
    return absl::OkStatus();
  }

  void ExpectAllRead() {
    std::vector<Bytes> copies;
    const absl::Status status = ReadAll(&copies);
    ASSERT_TRUE(status.ok()) << status;
    for (size_t i = 0; i < values_.size(); ++i) {
      EXPECT_TRUE(std::ranges::equal(copies[i], values_[i])) << tensors_[i].name;
    }
  }

  void ExpectRefused(absl::StatusCode code, const std::string& fragment) {
    const absl::Status status = ReadAll();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(fragment));
    EXPECT_THAT(std::string(status.message()), HasSubstr("x.safetensors"));
  }

  TestFolder folder_;
  const std::string path_ = folder_ / "x.safetensors";
  std::vector<std::vector<uint8_t>> values_;
  std::vector<NamedTensor> tensors_;
  store::UringFileSystem files_;
  store::FaultyFileSystem faulty_{files_};
  std::shared_ptr<TensorFile> file_;
  std::unique_ptr<TensorReader> reader_;
  ReadRoom room_;
};

TEST_F(TensorReaderTest, ReadsWhatIsMapped) {
  ExpectAllRead();
  ExpectAllRead();  // into the same room
}

TEST_F(TensorReaderTest, ReadsTheFileThatWasOpenedWhateverTakesItsName) {
  for (NamedTensor& tensor : tensors_) tensor.view.bytes = values_.back();
  for (NamedTensor& tensor : tensors_) tensor.view.shape = {std::ssize(values_.back())};
  Write();
  ExpectAllRead();
  std::filesystem::remove(path_);
  ExpectAllRead();
}

TEST_F(TensorReaderTest, RefusesATruncatedFile) {
  std::filesystem::resize_file(path_, std::filesystem::file_size(path_) - 1);
  ExpectRefused(absl::StatusCode::kDataLoss, "was changed");
}

TEST_F(TensorReaderTest, RefusesAFileThatWasWrittenTo) {
  std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-1, std::ios::end);
  file.put('x');
  file.close();
  ExpectRefused(absl::StatusCode::kDataLoss, "was changed");
}

TEST_F(TensorReaderTest, SaysWhichFileCannotBeRead) {
  faulty_.SetPlan({.fail_at = 2, .status = absl::UnavailableError("the device is gone")});
  ExpectRefused(absl::StatusCode::kUnavailable, "the device is gone");
  ExpectAllRead();
}

}  // namespace
}  // namespace cairn::engine
