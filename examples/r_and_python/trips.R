# The half in R: it makes a data frame and shares it, and reads what Python shares back.
# pipeline.py starts it; each tells the other one name.

suppressMessages(library(mori))

n <- as.integer(commandArgs(TRUE)[1])
set.seed(1)
zone <- factor(sample(c("north", "south", "west"), n, TRUE))
distance <- runif(n, 1, 30)
minutes <- 4 + 2 * distance + c(0, 5, 9)[zone] + rnorm(n)
trips <- share(data.frame(distance, zone, minutes))

cat(shared_name(trips), "\n", sep = "")
name <- readLines(file("stdin"), 1)

fitted <- map_shared(name)
error <- sqrt(mean((fitted$predicted - trips$minutes)^2))
slowest <- names(which.max(tapply(fitted$predicted, trips$zone, mean)))
cat(sprintf("R: error %.2f minutes over %d trips, slowest zone %s\n", error, nrow(fitted), slowest))
