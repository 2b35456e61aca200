// rocks_catalog.h: the catalog in RocksDB, in <directory>/catalog.
//
// RocksDB does its own I/O; the FileSystem door is for bulk data. Memory and open files are
// bounded (rocks_catalog.cc spells the options out).
#ifndef CAIRN_STORE_INDEX_ROCKS_CATALOG_H_
#define CAIRN_STORE_INDEX_ROCKS_CATALOG_H_

#include <memory>

#include "store/index/catalog.h"

namespace cairn::store {

std::unique_ptr<Catalog> MakeRocksCatalog();

}  // namespace cairn::store

#endif  // CAIRN_STORE_INDEX_ROCKS_CATALOG_H_
