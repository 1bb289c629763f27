#include <sqlite3.h>

/* sqlite3_db_config is variadic, which Swift cannot call. */
static inline int ll_sqlite_config(sqlite3 *connection, int option, int value) {
    return sqlite3_db_config(connection, option, value, (int *)0);
}

/* sqlite3_config is variadic too. To be called before anything else: without its statistics SQLite takes no lock for
   each piece of memory. */
static inline int ll_sqlite_without_statistics(void) { return sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); }

/* The file of a connection's database, through which SQLite itself reads and writes it: opening it a second time and
   closing that again would give up the process's locks on it. Null if there is none. */
static inline sqlite3_file *ll_sqlite_file(sqlite3 *connection) {
    sqlite3_file *file = 0;
    int code = sqlite3_file_control(connection, "main", SQLITE_FCNTL_FILE_POINTER, &file);
    return code == SQLITE_OK && file && file->pMethods ? file : 0;
}
