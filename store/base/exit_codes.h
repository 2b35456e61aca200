// exit_codes.h: the exit statuses of all Cairn programs, so that scripts can tell one trouble from
// another. Listed for users in the README.
#ifndef CAIRN_STORE_BASE_EXIT_CODES_H_
#define CAIRN_STORE_BASE_EXIT_CODES_H_

namespace cairn {

enum ExitCode : int {
  kExitOk = 0,
  kExitFailure = 1,      // anything without a status of its own
  kExitUsage = 2,        // bad flags or arguments
  kExitNotFound = 3,     // cairnctl: nothing matched
  kExitUnreachable = 4,  // cairnctl: no daemon answers
  kExitDamageFound =
      5,  // cairnctl verify, cairnd --check: stored entries are damaged (and quarantined)
  kExitBadConfig = 10,       // config.json unreadable or inconsistent
  kExitBadWeights = 11,      // a tensor missing, misshapen, unknown, truncated or of the wrong type
  kExitTokenRange = 12,      // a token id outside of the vocabulary
  kExitPromptTooLong = 13,   // prompt over the model's maximum
  kExitBadTokens = 14,       // tokens file unreadable
  kExitDirectoryInUse = 20,  // another cairnd holds the data directory
  kExitDiskFull = 21,        // no room to open the data directory or for the arena
  kExitBadCatalog = 22,  // cairnd --check: catalog damaged (start rebuilds it from the segments)
  kExitBadSegment = 23,  // cairnd --check: a segment damaged
  kExitBadFormat = 24,   // the data directory was written by another format version
  kExitBadArena = 25,    // no arena of the asked size
  kExitMismatch = 30,    // a resumed result differs from the cold one
};

}  // namespace cairn

#endif  // CAIRN_STORE_BASE_EXIT_CODES_H_
