#include "store/recovery/store_files.h"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "absl/strings/str_format.h"
#include "store/base/checksum.h"
#include "store/base/fault_point.h"
#include "store/segment/segment_set.h"

namespace cairn::store {
namespace {

constexpr std::string_view kFirstLine = "cairn store\n";
constexpr std::string_view kVersionField = "version ";
constexpr std::string_view kUuidField = "uuid ";
constexpr std::string_view kCheckField = "check ";
constexpr size_t kHeadersAtOnce = 64;

std::string FormatPath(const std::string& directory) { return directory + "/FORMAT"; }
std::string RebuildPath(const std::string& directory) { return directory + "/REBUILD"; }

// Takes `field`, a value and the end of the line off `text`.
std::optional<std::string_view> TakeField(std::string_view& text, std::string_view field) {
  const size_t end = text.find('\n');
  if (!text.starts_with(field) || end == std::string_view::npos) return std::nullopt;
  const std::string_view value = text.substr(field.size(), end - field.size());
  text.remove_prefix(end + 1);
  return value;
}

std::optional<StoreUuid> ParseUuid(std::string_view hex) {
  StoreUuid store;
  if (hex.size() != 2 * store.size()) return std::nullopt;
  for (size_t i = 0; i < store.size(); ++i) {
    const char* const at = hex.data() + 2 * i;
    const auto [stop, error] = std::from_chars(at, at + 2, store[i], 16);
    if (error != std::errc() || stop != at + 2) return std::nullopt;
  }
  return store;
}

std::string CheckLine(std::string_view lines) {
  const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(lines.data()),
                                       lines.size());
  return absl::StrFormat("%s%016x\n", std::string(kCheckField), Checksum(bytes));
}

// Whether the text does not match its own check line. Stores from before that line have none.
bool Decayed(std::string_view text) {
  const size_t at = text.find(std::string("\n").append(kCheckField));
  return at != std::string_view::npos &&
         !text.substr(at + 1).starts_with(CheckLine(text.substr(0, at + 1)));
}

}  // namespace

std::string SegmentsDirectory(const std::string& directory) { return directory + "/segments"; }

std::string UuidText(const StoreUuid& store) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const uint8_t byte : store) {
    text.push_back(kDigits[byte >> 4]);
    text.push_back(kDigits[byte & 15]);
  }
  return text;
}

StoreUuid NewStoreUuid(Random& random) {
  StoreUuid store;
  random.Fill(store);
  return store;
}

absl::StatusOr<std::optional<StoreUuid>> ReadFormatFile(const std::string& directory,
                                                        FileSystem& files) {
  const std::string path = FormatPath(directory);
  CAIRN_ASSIGN_OR_RETURN(const bool exists, files.Exists(path));
  if (!exists) return std::nullopt;
  CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, files.Open(path, OpenMode::kReadOnly));
  IoBuffer page(kIoAlignment);
  IoRequest read = IoRequest::Read(*file, 0, page.bytes());
  files.Submit({&read, 1});
  CAIRN_RETURN_IF_ERROR(read.status);
  std::string_view text(reinterpret_cast<const char*>(page.bytes().data()), read.bytes_done);
  if (!text.starts_with(kFirstLine) || Decayed(text)) return std::nullopt;
  text.remove_prefix(kFirstLine.size());
  const std::optional<std::string_view> version = TakeField(text, kVersionField);
  if (!version.has_value()) return std::nullopt;
  if (*version != std::to_string(kFormatVersion)) {
    return absl::FailedPreconditionError(
        absl::StrCat(directory, " was written by format version ", std::string(*version),
                     ", this program has version ", kFormatVersion,
                     "; use the matching program or another directory"));
  }
  const std::optional<std::string_view> uuid = TakeField(text, kUuidField);
  return uuid.has_value() ? ParseUuid(*uuid) : std::nullopt;
}

absl::Status WriteFormatFile(const std::string& directory, const StoreUuid& store,
                             FileSystem& files) {
  const std::string path = FormatPath(directory);
  const std::string temporary = path + ".new";
  CAIRN_ASSIGN_OR_RETURN(const bool left_over, files.Exists(temporary));
  if (left_over) CAIRN_RETURN_IF_ERROR(files.Unlink(temporary));
  CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<File> file,
                         files.Open(temporary, OpenMode::kCreate));
  std::string text =
      absl::StrCat(std::string(kFirstLine), std::string(kVersionField), kFormatVersion, "\n",
                   std::string(kUuidField), UuidText(store), "\n");
  text += CheckLine(text);
  IoBuffer page(kIoAlignment);
  std::fill(page.bytes().begin(), page.bytes().end(), uint8_t{'\n'});
  std::copy(text.begin(), text.end(), page.bytes().begin());
  IoRequest write = IoRequest::Write(*file, 0, page.bytes());
  files.Submit({&write, 1});
  CAIRN_RETURN_IF_ERROR(write.status);
  CAIRN_RETURN_IF_ERROR(file->Sync());
  CAIRN_FAULT_POINT(kFormatWritten);
  CAIRN_RETURN_IF_ERROR(files.Rename(temporary, path));
  CAIRN_FAULT_POINT(kFormatRenamed);
  return files.SyncDirectory(directory);
}

absl::Status MarkForRebuild(const std::string& directory, FileSystem& files) {
  const absl::Status made = files.Open(RebuildPath(directory), OpenMode::kCreate).status();
  if (!made.ok() && !absl::IsAlreadyExists(made)) return made;
  return files.SyncDirectory(directory);
}

absl::StatusOr<bool> IsMarkedForRebuild(const std::string& directory, FileSystem& files) {
  return files.Exists(RebuildPath(directory));
}

absl::Status UnmarkForRebuild(const std::string& directory, FileSystem& files) {
  CAIRN_RETURN_IF_ERROR(files.Unlink(RebuildPath(directory)));
  return files.SyncDirectory(directory);
}

absl::StatusOr<std::vector<SegmentFile>> OpenSegmentFiles(const std::string& directory,
                                                          FileSystem& files, OpenMode mode) {
  const std::string folder = SegmentsDirectory(directory);
  CAIRN_ASSIGN_OR_RETURN(const std::vector<std::string> names, files.List(folder));
  std::vector<SegmentFile> found;
  for (const std::string& name : names) {
    const std::optional<uint64_t> id = SegmentSet::ParseFileName(name);
    if (!id.has_value()) continue;
    SegmentFile segment{.id = *id};
    CAIRN_ASSIGN_OR_RETURN(segment.file, files.Open(absl::StrCat(folder, "/", name), mode));
    CAIRN_ASSIGN_OR_RETURN(segment.size, segment.file->Size());
    found.push_back(std::move(segment));
  }
  for (size_t first = 0; first < found.size(); first += kHeadersAtOnce) {
    const size_t count = std::min(kHeadersAtOnce, found.size() - first);
    IoBuffer pages(count * kSegmentHeaderBytes);
    std::vector<IoRequest> reads;
    for (size_t i = 0; i < count; ++i) {
      reads.push_back(
          IoRequest::Read(*found[first + i].file, 0,
                          pages.bytes().subspan(i * kSegmentHeaderBytes, kSegmentHeaderBytes)));
    }
    files.Submit(reads);
    for (size_t i = 0; i < count; ++i) {
      SegmentFile& segment = found[first + i];
      CAIRN_RETURN_IF_ERROR(reads[i].status);
      absl::StatusOr<SegmentHeader> header =
          DecodeSegmentHeader(reads[i].slices[0].first(reads[i].bytes_done));
      segment.header_status = header.status();
      // A whole header of another version is no damage, and not ours to mend.
      if (absl::IsFailedPrecondition(header.status())) {
        return absl::FailedPreconditionError(
            absl::StrCat(segment.file->path(), " was ", std::string(header.status().message()),
                         "; use the matching program or another directory"));
      }
      if (!header.ok()) continue;
      segment.header = *header;
      if (header->segment != segment.id) {
        segment.header_status = absl::DataLossError(
            absl::StrCat(segment.file->path(), " holds segment ", header->segment));
      }
    }
  }
  return found;
}

}  // namespace cairn::store
