#include <sqlite3.h>

/* sqlite3_db_config is variadic, which Swift cannot call. */
static inline int ll_sqlite_config(sqlite3 *connection, int option, int value) {
    return sqlite3_db_config(connection, option, value, (int *)0);
}
