#include <sqlite3.h>

/* sqlite3_db_config is variadic, which Swift cannot call. */
static inline int ll_sqlite_config(sqlite3 *connection, int option, int value) {
    return sqlite3_db_config(connection, option, value, (int *)0);
}

/* sqlite3_config is variadic too. To be called before anything else: without its statistics SQLite takes no lock for
   each piece of memory. */
static inline int ll_sqlite_without_statistics(void) { return sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); }
